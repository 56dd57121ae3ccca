//! The thread that listens to the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::net::if_::if_indextoname;
use tortie_flow::Seen;
use tortie_flowtap::{Error, Tap, Told};
use tortie_nftables::{Counters, MAX_NAME_LEN, TABLE};
use tortie_ruleset::{EGRESS_GROUP, INGRESS_GROUP, drop_chain};
use tracing::{debug, info, warn};

use super::Drops;
use crate::health::Health;

/// How long the kernel is waited for at a time.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the counters of what was not told are read.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long until groups that another process has are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Causes whose counters are looked at; a node with more denying rules than that counts those of the first ones.
const MOST_COUNTED: usize = 4096;

const GROUPS: [u16; 2] = [INGRESS_GROUP, EGRESS_GROUP];

/// Starts to listen; whether the kernel can tell of packets at all.
pub fn start(health: Arc<Health>) -> std::io::Result<bool> {
    let tap = match Tap::open(&GROUPS) {
        Ok(tap) => Some(tap),
        Err(Error::Unsupported(errno)) => {
            warn!(%errno, "this kernel has no NFLOG: packets that end are not recorded");
            return Ok(false);
        }
        Err(error @ (Error::Taken(_) | Error::Silent(_) | Error::Unavailable(_))) => {
            warn!(%error, "packets that end are not recorded here for now");
            None
        }
    };
    std::thread::Builder::new().name("drops".to_owned()).spawn(move || listen(tap, &health.drops))?;
    Ok(true)
}

fn listen(mut tap: Option<Tap>, drops: &Drops) {
    let mut suppressed = Suppressed::default();
    loop {
        let Some(open) = &mut tap else {
            std::thread::sleep(RETRY);
            tap = Tap::open(&GROUPS).inspect(|_| info!("packets that end are recorded")).ok();
            continue;
        };
        match open.listen(PATIENCE) {
            Ok(heard) => {
                let seen: Vec<Seen> = heard.packets.into_iter().map(seen).collect();
                suppressed.heard(&seen);
                if !seen.is_empty() || heard.lost > 0 {
                    drops.take(&seen, heard.lost, now_ms());
                }
            }
            Err(error) => {
                warn!(%error, "NFLOG can't be read; trying again");
                tap = None;
            }
        }
        suppressed.count(drops);
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn seen(told: Told) -> Seen {
    let Told { group: _, sequence: _, prefix, hook, input, output, flow } = told;
    // An interface that is gone since has no name.
    let name = |index: u32| if_indextoname(index).ok().map(|name| name.to_string_lossy().into_owned());
    Seen { prefix, hook, input: input.and_then(name), output: output.and_then(name), flow }
}

/// Reads how many packets ended without being told of, for the causes that were heard of lately: before a packet is
/// suppressed, others of its cause were told.
#[derive(Default)]
struct Suppressed {
    counters: Option<Counters>,
    /// The last reading of each cause, and whether to read again.
    causes: BTreeMap<String, (u64, bool)>,
    next: Option<Instant>,
}

impl Suppressed {
    fn heard(&mut self, packets: &[Seen]) {
        for seen in packets {
            if let Some((_, again)) = self.causes.get_mut(&seen.prefix) {
                *again = true;
            } else if self.causes.len() < MOST_COUNTED {
                self.causes.insert(seen.prefix.clone(), (0, true));
            }
        }
    }

    fn count(&mut self, drops: &Drops) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + COUNT_EVERY);
        if self.counters.is_none() {
            self.counters = Counters::open(TABLE).ok();
        }
        let Some(counters) = &mut self.counters else { return };
        for (prefix, (last, again)) in self.causes.iter_mut().filter(|(_, (_, again))| *again) {
            let read = drop_chain(prefix, MAX_NAME_LEN).iter().try_fold(0, |sum: u64, chain| {
                counters.packets(chain).map(|packets| sum.saturating_add(packets.unwrap_or(0)))
            });
            match read {
                Ok(packets) => {
                    let more = since(*last, packets);
                    drops.suppressed(prefix, more);
                    (*last, *again) = (packets, more > 0);
                }
                Err(error) => debug!(%error, prefix, "a counter can't be read"),
            }
        }
    }
}

/// How much was counted since the last reading. A chain that was made anew counts from nothing.
fn since(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}
