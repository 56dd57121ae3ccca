//! A stream of numbered packets through a fault: which arrived, which did not.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use tortie_net::Family;

use crate::node::wait;
use crate::place::Place;

/// Room for packets while the receiving thread does not run, bytes: some seconds at the highest rates.
const RECEIVE_BUFFER: usize = 8 << 20;
/// For how long nothing may arrive before the stream counts as drained.
const QUIET: Duration = Duration::from_millis(100);
/// How long a sender that fell behind may go on after the stop.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Length of a packet's content: who sends, and its number.
const LENGTH: usize = 16;

/// UDP packets from one place to another, at a fixed rate, until stopped. One way: the receiver does not answer.
pub struct Prober {
    sent: Arc<AtomicU64>,
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    received: Arc<Mutex<Received>>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Received {
    /// One bit for each sequence number.
    bits: Vec<u64>,
    count: u64,
    duplicates: u64,
    last: Option<Instant>,
}

#[derive(Default)]
struct Sent {
    count: u64,
    took: Duration,
    errors: BTreeMap<u64, String>,
}

/// What a [`Prober`] saw.
#[derive(Debug)]
pub struct Report {
    /// How many packets were sent, those that the sender's kernel refused included; they are numbered from 0.
    pub sent: u64,
    /// How many different packets arrived.
    pub received: u64,
    /// How many arrived more than once.
    pub duplicates: u64,
    /// From the first packet to the last.
    pub took: Duration,
    /// Packets that the sender's kernel refused, with its reason.
    pub refused: BTreeMap<u64, String>,
    bits: Vec<u64>,
}

impl Prober {
    /// Starts to send `rate` packets a second to a UDP port of the other place. Both addresses must be there.
    pub fn start(from: &Place, to: &Place, family: Family, port: u16, rate: u32) -> Result<Prober> {
        if rate == 0 {
            bail!("rate 0: expected packets per second, such as 1000");
        }
        let address =
            |place: &Place| place.ip(family).with_context(|| format!("{} has no {family} address", place.name()));
        let (source, target) = (SocketAddr::new(address(from)?, 0), SocketAddr::new(address(to)?, port));
        let input = to.run(|| UdpSocket::bind(target).with_context(|| format!("listen on udp {target}")))?;
        setsockopt(&input, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge the receive buffer")?;
        input.set_read_timeout(Some(Duration::from_millis(20)))?;
        let output = from.run(|| UdpSocket::bind(source).with_context(|| format!("send from udp {source}")))?;
        let id = run_id();
        let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Received::default())));
        let (stop_sending, stop_receiving) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let receiver = {
            let (received, stop) = (received.clone(), stop_receiving.clone());
            thread("lab-receiver", move || receive(&input, id, &received, &stop))?
        };
        let sender = {
            let (sent, stop) = (sent.clone(), stop_sending.clone());
            thread("lab-sender", move || transmit(&output, target, id, rate, &sent, &stop))?
        };
        Ok(Prober { sent, stop_sending, stop_receiving, received, sender: Some(sender), receiver: Some(receiver) })
    }

    /// The number of the packet that is sent next: a mark between before and after.
    pub fn mark(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// How many different packets have arrived until now.
    pub fn received(&self) -> u64 {
        lock(&self.received).count
    }

    /// Waits until `count` more packets have arrived; whether they did before the deadline.
    pub fn wait_received(&self, count: u64, deadline: Duration) -> bool {
        let wanted = self.received() + count;
        wait(deadline, || (self.received() >= wanted).then_some(())).is_some()
    }

    /// Waits until `count` more packets have been sent.
    pub fn wait_sent(&self, count: u64) {
        let wanted = self.mark() + count;
        while self.mark() < wanted {
            sleep(Duration::from_millis(1));
        }
    }

    /// Stops sending, waits for what is still on its way, and says what arrived.
    pub fn stop(mut self) -> Report {
        self.stop_sending.store(true, Ordering::Release);
        let sent = self.sender.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let ended = Instant::now();
        while lock(&self.received).last.unwrap_or(ended).max(ended).elapsed() < QUIET {
            sleep(Duration::from_millis(10));
        }
        self.end();
        let Received { bits, count, duplicates, last: _ } = std::mem::take(&mut *lock(&self.received));
        let Sent { count: sent, took, errors } = sent;
        Report { sent, received: count, duplicates, took, refused: errors, bits }
    }

    fn end(&mut self) {
        self.stop_sending.store(true, Ordering::Release);
        self.stop_receiving.store(true, Ordering::Release);
        // A panic in a thread has been printed; its packets then count as lost.
        let _ = self.sender.take().map(JoinHandle::join);
        let _ = self.receiver.take().map(JoinHandle::join);
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.end();
    }
}

impl Report {
    /// Whether the packet of that number arrived.
    pub fn arrived(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// The numbers of packets that did not arrive, as ranges.
    pub fn lost(&self) -> Vec<Range<u64>> {
        ranges((0..self.sent).filter(|number| !self.arrived(*number)))
    }

    /// The numbers of packets that arrived, as ranges.
    pub fn delivered(&self) -> Vec<Range<u64>> {
        ranges((0..self.sent).filter(|number| self.arrived(*number)))
    }

    /// How many packets were sent each second.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// An error when a packet of these numbers was lost.
    pub fn expect_all(&self, numbers: Range<u64>) -> Result<()> {
        let lost = ranges(numbers.clone().filter(|number| !self.arrived(*number)));
        if lost.is_empty() && numbers.end <= self.sent {
            return Ok(());
        }
        bail!("of packets {numbers:?}, {lost:?} were lost; {self:?}")
    }

    /// An error when a packet of these numbers arrived.
    pub fn expect_none(&self, numbers: Range<u64>) -> Result<()> {
        let arrived = ranges(numbers.clone().filter(|number| self.arrived(*number)));
        if arrived.is_empty() {
            return Ok(());
        }
        bail!("of packets {numbers:?}, {arrived:?} arrived that should not have; sent {}", self.sent)
    }

    /// An error when any packet was lost.
    pub fn expect_no_loss(&self) -> Result<()> {
        self.expect_all(0..self.sent)
    }

    /// An error when any packet arrived.
    pub fn expect_silence(&self) -> Result<()> {
        self.expect_none(0..self.sent)
    }
}

fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        match all.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            Some(_) | None => all.push(number..number + 1),
        }
    }
    all
}

fn lock(received: &Mutex<Received>) -> std::sync::MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("start the thread {name}"))
}

/// Tells this stream from others that reach the same port.
fn run_id() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | COUNT.fetch_add(1, Ordering::Relaxed)
}

fn transmit(socket: &UdpSocket, to: SocketAddr, id: u64, rate: u32, sent: &AtomicU64, stop: &AtomicBool) -> Sent {
    let mut result = Sent::default();
    let begun = Instant::now();
    let mut stopped = None;
    loop {
        let due = Duration::from_nanos(result.count * 1_000_000_000 / u64::from(rate));
        let now = begun.elapsed();
        if stopped.is_none() && stop.load(Ordering::Acquire) {
            stopped = Some(now);
        }
        // What was due before the stop is sent still, so that a thread that did not run for a while keeps the rate.
        if stopped.is_some_and(|at| due >= at || now >= at + CATCH_UP) {
            break;
        }
        sleep(due.saturating_sub(now));
        let mut packet = [0; LENGTH];
        packet[..8].copy_from_slice(&id.to_be_bytes());
        packet[8..].copy_from_slice(&result.count.to_be_bytes());
        if let Err(error) = socket.send_to(&packet, to) {
            result.errors.insert(result.count, error.to_string());
        }
        result.count += 1;
        sent.store(result.count, Ordering::Release);
    }
    result.took = begun.elapsed();
    result
}

fn receive(socket: &UdpSocket, id: u64, received: &Mutex<Received>, stop: &AtomicBool) {
    let mut packet = [0; 64];
    while !stop.load(Ordering::Acquire) {
        let Ok(LENGTH) = socket.recv(&mut packet) else { continue };
        let word = |at: usize| u64::from_be_bytes(packet[at..at + 8].try_into().expect("eight bytes"));
        if word(0) == id {
            lock(received).note(word(8));
        }
    }
}

impl Received {
    fn note(&mut self, number: u64) {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.count += 1;
        } else {
            self.duplicates += 1;
        }
        self.last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_was_lost_and_what_arrived() {
        let mut received = Received::default();
        for number in [0, 1, 2, 70, 70] {
            received.note(number);
        }
        let Received { bits, count, duplicates, .. } = received;
        let took = Duration::from_secs(1);
        let report = Report { sent: 72, received: count, duplicates, took, refused: BTreeMap::new(), bits };
        assert_eq!((report.received, report.duplicates), (4, 1));
        assert_eq!(report.lost(), [3..70, 71..72]);
        assert_eq!(report.delivered(), [0..3, 70..71]);
        assert!(report.expect_all(0..3).is_ok() && report.expect_all(0..4).is_err());
        assert!(report.expect_none(3..70).is_ok() && report.expect_none(3..71).is_err());
        assert!(report.expect_all(70..80).is_err(), "numbers that were never sent did not arrive");
    }
}
