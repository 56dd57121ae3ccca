//! The thread that listens to the kernel.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::net::if_::if_indextoname;
use tortie_flow::Seen;
use tortie_flowtap::{Error, Tap, Told};
use tortie_ruleset::{EGRESS_GROUP, INGRESS_GROUP};
use tracing::{info, warn};

use super::Drops;
use super::counts::{CountedBy, Suppressed};
use crate::health::Health;

/// How long the kernel is waited for at a time.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long until groups that another process has are tried again.
const RETRY: Duration = Duration::from_secs(5);

const GROUPS: [u16; 2] = [INGRESS_GROUP, EGRESS_GROUP];

/// Starts to listen; whether the kernel can tell of packets at all. What is not told of is counted by `counts`.
pub fn start(health: Arc<Health>, counts: CountedBy) -> std::io::Result<bool> {
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
    std::thread::Builder::new().name("drops".to_owned()).spawn(move || listen(tap, counts, &health.drops))?;
    Ok(true)
}

fn listen(mut tap: Option<Tap>, counts: CountedBy, drops: &Drops) {
    let mut suppressed = Suppressed::new(counts);
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
