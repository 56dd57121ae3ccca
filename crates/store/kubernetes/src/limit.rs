//! How many requests a client sends: a bucket of tokens for what pods wait for, and one for everything else.
//!
//! A node that lists and watches must never keep a pod from getting its address, nor one pod another: upstream's plugin
//! is a process of its own for each pod, with a limit of its own.

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

/// How many times as many requests may be made for pods as for everything else. A node that starts with as many pods as
/// Kubernetes lets it have makes about a thousand.
const FOR_PODS: u32 = 10;

/// A bucket of tokens.
struct Bucket {
    rate: f64,
    size: f64,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    fn new(rate: f64, size: f64) -> Bucket {
        Bucket { rate, size, tokens: size, filled: None }
    }

    /// Takes a token, or says how long to wait before asking again.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.size);
        let missing = 1.0 - self.tokens;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64(missing / self.rate));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// The limits that all requests of a client share.
pub(crate) struct Limiter {
    buckets: Option<[Mutex<Bucket>; 2]>,
}

impl Limiter {
    /// `rate` requests a second and `burst` at once, ten times as many for pods; a rate that is not above zero means no
    /// limit.
    pub(crate) fn new(rate: f64, burst: u32) -> Limiter {
        let size = f64::from(burst.max(1));
        let times = |times: u32| Mutex::new(Bucket::new(rate * f64::from(times), size * f64::from(times)));
        Limiter { buckets: (rate > 0.0).then(|| [times(FOR_PODS), times(1)]) }
    }

    fn take(&self, now: Instant, urgency: Urgency) -> Result<(), Duration> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        buckets[urgency as usize].lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Waits for a token.
    pub(crate) async fn acquire(&self, urgency: Urgency) {
        while let Err(wait) = self.take(Instant::now(), urgency) {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_ask_for_keeps_no_pod_waiting() {
        let (limiter, now) = (Limiter::new(10.0, 8), Instant::now());
        let taken = |urgency| (0..1000).filter(|_| limiter.take(now, urgency).is_ok()).count();
        assert_eq!(taken(Urgency::Other), 8);
        assert_eq!(taken(Urgency::Pod), 80);
        let later = now + Duration::from_secs(1);
        let taken = |urgency| (0..1000).filter(|_| limiter.take(later, urgency).is_ok()).count();
        assert_eq!((taken(Urgency::Pod), taken(Urgency::Other)), (80, 8));
    }

    #[test]
    fn the_wait_is_long_enough() {
        let (mut bucket, mut now) = (Bucket::new(10.0, 4.0), Instant::now());
        for _ in 0..20 {
            if let Err(wait) = bucket.take(now) {
                // Rounding may leave a trace of a token to wait for.
                now += wait + Duration::from_nanos(10);
                assert_eq!(bucket.take(now), Ok(()));
            }
        }
    }

    #[test]
    fn no_rate_is_no_limit_and_no_burst_is_one() {
        let now = Instant::now();
        assert!((0..10_000).all(|_| Limiter::new(-1.0, 1).take(now, Urgency::Other).is_ok()));
        assert_eq!(Limiter::new(1.0, 0).take(now, Urgency::Other), Ok(()));
    }
}
