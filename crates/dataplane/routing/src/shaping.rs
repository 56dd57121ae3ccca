//! Limits of workloads' bandwidth: token buckets on the node's side of their links.
//!
//! What goes to a workload is held back on its interface. What comes from it can't be held back there, so it goes
//! through a device of its own (ifb, upstream's name for it) and is held back on that.
//! Ours without memory: buckets with our handle, devices with our prefix, and filters of our priority.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha512};
use tortie_dataplane::{Applier, Cause, Edit, Failures, Report, Target};
use tortie_desired::{Bandwidth, Batch, Endpoint, PeakRate, Tables};
use tortie_netlink::{Error, Event, Handle, Link, Qdisc, Result, TokenBucket};

use crate::target::cause;

/// The handle of our buckets.
const HANDLE: u32 = 0x0ca1_0000;
/// The priority of our filters.
const PRIORITY: u16 = 0x0ca1;
/// Upstream's prefix of the devices.
const PREFIX: &str = "bwcali";
const LONGEST_NAME: usize = 15;
/// How long a packet waits at most behind what fills a bucket: 1/40 s, as upstream.
const PER_SECOND: u64 = 40;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toward {
    /// To the workload.
    Workload,
    /// From the workload.
    Node,
}

/// What is held back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShaperKey {
    /// The workload's interface; of a device that is left over from none, the device.
    pub interface: Arc<str>,
    /// Which way.
    pub toward: Toward,
}

impl fmt::Display for ShaperKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShaperKey { interface, toward } = self;
        let word = match toward {
            Toward::Workload => "ingress",
            Toward::Node => "egress",
        };
        write!(f, "{word} bandwidth of {interface}")
    }
}

/// The device through which what comes from a workload goes.
fn device_of(interface: &str) -> String {
    if interface.starts_with(PREFIX) {
        return interface.to_owned();
    }
    let digest = Sha512::digest(interface.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{}", &hex[..LONGEST_NAME - PREFIX.len()])
}

/// A bucket as it is given to the kernel. What it holds follows from its rate and limit, which read back.
fn bucket(bandwidth: &Bandwidth) -> TokenBucket {
    let Bandwidth { rate, burst, peak } = *bandwidth;
    let limit = |rate: u64, burst: u32| u32::try_from(rate / PER_SECOND).unwrap_or(u32::MAX).saturating_add(burst);
    let (peak, peak_burst) = peak.map_or((0, 0), |PeakRate { rate, burst }| (rate, burst));
    let by_peak = if peak > 0 { limit(peak, peak_burst) } else { u32::MAX };
    TokenBucket { rate, burst, limit: limit(rate, burst).min(by_peak), peak, peak_burst }
}

/// What stands for a bucket that is not there.
const NOTHING: TokenBucket = TokenBucket { rate: 0, burst: 0, limit: 0, peak: 0, peak_burst: 0 };

/// What reads back of a bucket.
fn seen(bucket: &TokenBucket) -> TokenBucket {
    TokenBucket { burst: 0, peak_burst: 0, ..*bucket }
}

/// A bucket, and all that leads to it.
#[derive(Clone, Copy, Debug)]
pub struct Shaper {
    bucket: TokenBucket,
    /// Whether packets get to it.
    whole: bool,
}

impl PartialEq for Shaper {
    fn eq(&self, other: &Shaper) -> bool {
        seen(&self.bucket) == seen(&other.bucket) && self.whole == other.whole
    }
}

/// The buckets of a network namespace.
pub struct ShaperTable {
    kernel: Handle,
}

impl ShaperTable {
    fn index(&mut self, name: &str) -> Result<Option<Link>> {
        match self.kernel.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&mut self, key: &ShaperKey, bucket: &TokenBucket) -> Result<()> {
        let link = self.kernel.link(&*key.interface)?;
        match key.toward {
            Toward::Workload => self.kernel.set_token_bucket(link.index, HANDLE, bucket),
            Toward::Node => {
                let name = device_of(&key.interface);
                let device = match self.index(&name)? {
                    Some(device) => device.index,
                    None => self.kernel.create_ifb(&name, link.mtu)?,
                };
                self.kernel.set_link_up(device, true)?;
                self.kernel.set_token_bucket(device, HANDLE, bucket)?;
                self.kernel.add_ingress_qdisc(link.index)?;
                let found = self.kernel.redirects(link.index)?;
                if found.iter().any(|filter| filter.priority == PRIORITY && filter.to == Some(device)) {
                    return Ok(());
                }
                if found.iter().any(|filter| filter.priority == PRIORITY) {
                    self.kernel.delete_redirect(link.index, PRIORITY)?;
                }
                self.kernel.add_redirect(link.index, PRIORITY, device)
            }
        }
    }

    /// First the way to the device, then the device, so that no packet goes to where nothing is.
    fn remove(&mut self, key: &ShaperKey) -> Result<()> {
        let link = self.index(&key.interface)?;
        match (key.toward, link) {
            (Toward::Workload, None) => Ok(()),
            (Toward::Workload, Some(link)) => gone(self.kernel.delete_root_qdisc(link.index, HANDLE)),
            (Toward::Node, link) => {
                if let Some(link) = link.filter(|link| !link.name.starts_with(PREFIX)) {
                    let found = self.kernel.redirects(link.index)?;
                    let ours = found.iter().filter(|filter| filter.priority == PRIORITY).count();
                    if ours > 0 && ours == found.len() {
                        gone(self.kernel.delete_ingress_qdisc(link.index))?;
                    } else if ours > 0 {
                        gone(self.kernel.delete_redirect(link.index, PRIORITY))?;
                    }
                }
                match self.index(&device_of(&key.interface))? {
                    Some(device) => gone(self.kernel.delete_link(device.index)),
                    None => Ok(()),
                }
            }
        }
    }

    fn read(&mut self) -> Result<BTreeMap<ShaperKey, Shaper>> {
        let links = self.kernel.links()?;
        let ours = |q: Qdisc| (q.root && q.handle == HANDLE).then_some((q.link, q.bucket?));
        let buckets: BTreeMap<u32, TokenBucket> = self.kernel.qdiscs()?.into_iter().filter_map(ours).collect();
        let mut out = BTreeMap::new();
        let devices: BTreeMap<&str, &Link> =
            links.iter().filter(|link| link.name.starts_with(PREFIX)).map(|link| (&*link.name, link)).collect();
        let mut claimed = BTreeSet::new();
        for link in links.iter().filter(|link| !link.name.starts_with(PREFIX)) {
            let key = |toward| ShaperKey { interface: Arc::from(&*link.name), toward };
            if let Some(bucket) = buckets.get(&link.index) {
                out.insert(key(Toward::Workload), Shaper { bucket: *bucket, whole: true });
            }
            let Some(device) = devices.get(&*device_of(&link.name)) else { continue };
            claimed.insert(device.index);
            let leads = self.kernel.redirects(link.index)?;
            let leads = leads.iter().any(|f| f.priority == PRIORITY && f.to == Some(device.index));
            let bucket = buckets.get(&device.index).copied().unwrap_or(NOTHING);
            out.insert(key(Toward::Node), Shaper { bucket, whole: leads && device.up });
        }
        for device in devices.values().filter(|device| !claimed.contains(&device.index)) {
            let key = ShaperKey { interface: Arc::from(&*device.name), toward: Toward::Node };
            out.insert(key, Shaper { bucket: NOTHING, whole: false });
        }
        Ok(out)
    }
}

/// What is gone already is gone.
fn gone(result: Result<()>) -> Result<()> {
    match result {
        // The kernel says so, too, of the first place of a link that never had anything there.
        Err(Error::NotFound { .. } | Error::Invalid { .. }) => Ok(()),
        other => other,
    }
}

impl Target for ShaperTable {
    type Key = ShaperKey;
    type Value = Shaper;

    fn observe(&mut self) -> std::result::Result<BTreeMap<ShaperKey, Shaper>, Cause> {
        self.read().map_err(cause)
    }

    fn commit(&mut self, edits: &[Edit<ShaperKey, Shaper>]) -> Failures<ShaperKey> {
        let mut failures = Failures::new();
        for edit in edits {
            let result = match edit {
                Edit::Put { key, value, old: _ } => self.put(key, &value.bucket),
                Edit::Remove { key, old: _ } => self.remove(key),
            };
            if let Err(error) = result {
                failures.add(edit.key().clone(), cause(error));
            }
        }
        failures
    }
}

/// The one writer of a node's limits of bandwidth. Writes nothing before the first [`Shaping::apply`].
pub struct Shaping {
    applier: Applier<ShaperTable>,
    /// Interfaces with limits: those whose coming and going matters.
    limited: BTreeSet<Arc<str>>,
}

impl Shaping {
    /// Limits of a network namespace, with none wanted yet.
    pub fn new(kernel: Handle) -> Shaping {
        Shaping { applier: Applier::new(ShaperTable { kernel }), limited: BTreeSet::new() }
    }

    /// Replaces everything that is wanted.
    pub fn set_desired(&mut self, tables: &Tables) {
        let mut wanted = BTreeMap::new();
        // Of several endpoints on one interface the first has it.
        for endpoint in tables.endpoints.values().rev() {
            wanted.extend(shapers(endpoint));
        }
        self.limited = wanted.keys().map(|key: &ShaperKey| key.interface.clone()).collect();
        self.applier.want_all(wanted);
    }

    /// Takes a change that was applied to the tables.
    pub fn change_desired(&mut self, batch: &Batch, tables: &Tables) {
        let limited = |endpoint: &Endpoint| shapers(endpoint).next().is_some();
        let concerns = batch.endpoints.values().flatten().any(|endpoint| limited(endpoint));
        if concerns || (!batch.endpoints.is_empty() && !self.limited.is_empty()) {
            self.set_desired(tables);
        }
    }

    /// Reads the kernel anew with the next [`Shaping::apply`].
    pub fn resync(&mut self) {
        self.applier.resync();
    }

    /// Takes what the kernel told of a change.
    pub fn on_event(&mut self, event: &Event) {
        let concerned = match event {
            Event::LinkSet(link) => {
                let key = |toward| ShaperKey { interface: Arc::from(&*link.name), toward };
                // Once it has its limits, nothing that is told of a link changes them.
                self.limited.contains(&*link.name)
                    && [Toward::Workload, Toward::Node].into_iter().any(|t| self.applier.tracker().differs(&key(t)))
            }
            Event::LinkGone(link) => self.limited.contains(&*link.name) || link.name.starts_with(PREFIX),
            Event::Resync => true,
            Event::AddressSet(_)
            | Event::AddressGone(_)
            | Event::RouteSet(_)
            | Event::RouteGone(_)
            | Event::NeighbourSet(_)
            | Event::NeighbourGone(_) => false,
        };
        if concerned {
            self.resync();
        }
    }

    /// Reads the kernel if that is due, then writes what differs.
    pub fn apply(&mut self, now: Instant) -> Report<ShaperKey> {
        self.applier.flush(now)
    }

    /// When the next [`Shaping::apply`] has something to do by itself.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.applier.wake_at(now)
    }
}

fn shapers(endpoint: &Endpoint) -> impl Iterator<Item = (ShaperKey, Shaper)> {
    let limits =
        [(Toward::Workload, endpoint.limits.ingress_bandwidth), (Toward::Node, endpoint.limits.egress_bandwidth)];
    let interface = endpoint.interface.clone();
    limits.into_iter().filter_map(move |(toward, bandwidth)| {
        let key = ShaperKey { interface: interface.clone(), toward };
        Some((key, Shaper { bucket: bucket(&bandwidth?), whole: true }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_has_upstreams_name() {
        // printf cali12345678901 | sha512sum
        assert_eq!(device_of("cali12345678901"), "bwcali16fffcf1d");
        assert_eq!(device_of(&device_of("cali1")), device_of("cali1"), "a device that is left over is itself");
    }

    #[test]
    fn a_bucket_can_hold_all_that_it_is_asked_to() {
        let bandwidth = Bandwidth { rate: 1_000_000, burst: 50_000, peak: None };
        assert_eq!(bucket(&bandwidth).limit, 75_000);
        let peak = Some(PeakRate { rate: 2_000_000, burst: 10_000 });
        assert_eq!(bucket(&Bandwidth { peak, ..bandwidth }).limit, 60_000, "the smaller of both, as upstream");
        let most = Bandwidth { rate: u64::MAX, burst: u32::MAX, peak: None };
        assert_eq!(bucket(&most).limit, u32::MAX);
    }
}
