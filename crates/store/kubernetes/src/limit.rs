//! How many requests a client sends: a bucket of tokens, part of which only address management may take.
//!
//! A node that lists and watches must never keep a pod from getting its address.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much a request is in a hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Of address management and of endpoints: a pod waits for it.
    Pod,
    /// Any other.
    Other,
}

/// The share of the bucket that is kept for pods.
const RESERVED: f64 = 0.25;

/// A bucket of tokens.
struct Bucket {
    rate: f64,
    size: f64,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    /// Takes a token, or says how long to wait before asking again.
    fn take(&mut self, now: Instant, urgency: Urgency) -> Result<(), Duration> {
        let passed = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.size);
        let floor = match urgency {
            Urgency::Pod => 0.0,
            Urgency::Other => (self.size * RESERVED).floor(),
        };
        let missing = 1.0 + floor - self.tokens;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64(missing / self.rate));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// A limit that all requests of a client share.
pub(crate) struct Limiter {
    bucket: Option<Mutex<Bucket>>,
}

impl Limiter {
    /// `rate` requests a second and `burst` at once; a rate that is not above zero means no limit.
    pub(crate) fn new(rate: f64, burst: u32) -> Limiter {
        let size = f64::from(burst.max(1));
        let bucket = (rate > 0.0).then(|| Mutex::new(Bucket { rate, size, tokens: size, filled: None }));
        Limiter { bucket }
    }

    /// Waits for a token.
    pub(crate) async fn acquire(&self, urgency: Urgency) {
        let Some(bucket) = &self.bucket else { return };
        loop {
            let taken = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), urgency);
            match taken {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(size: f64) -> Bucket {
        Bucket { rate: 10.0, size, tokens: size, filled: None }
    }

    #[test]
    fn others_leave_a_part_for_pods() {
        let (mut bucket, now) = (bucket(8.0), Instant::now());
        let others = (0..20).filter(|_| bucket.take(now, Urgency::Other).is_ok()).count();
        let pods = (0..20).filter(|_| bucket.take(now, Urgency::Pod).is_ok()).count();
        assert_eq!((others, pods), (6, 2));
    }

    #[test]
    fn pods_go_first_when_the_bucket_is_empty() {
        let (mut bucket, start) = (bucket(4.0), Instant::now());
        while bucket.take(start, Urgency::Pod).is_ok() {}
        for step in 1..=50_u32 {
            let now = start + Duration::from_millis(100) * step;
            assert!(bucket.take(now, Urgency::Other).is_err(), "it takes what a pod waits for");
            assert_eq!(bucket.take(now, Urgency::Pod), Ok(()), "step {step}");
        }
    }

    #[test]
    fn the_wait_is_long_enough() {
        for urgency in [Urgency::Pod, Urgency::Other] {
            let (mut bucket, mut now) = (bucket(4.0), Instant::now());
            for _ in 0..20 {
                if let Err(wait) = bucket.take(now, urgency) {
                    // Rounding may leave a trace of a token to wait for.
                    now += wait + Duration::from_nanos(10);
                    assert_eq!(bucket.take(now, urgency), Ok(()));
                }
            }
        }
    }

    #[test]
    fn even_the_smallest_bucket_serves_everybody() {
        let (mut bucket, now) = (bucket(1.0), Instant::now());
        assert_eq!(bucket.take(now, Urgency::Other), Ok(()));
    }
}
