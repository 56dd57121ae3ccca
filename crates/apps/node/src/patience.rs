//! Waiting for a datastore that does not answer yet, or lacks what the node needs: a control plane that is down at boot,
//! kinds that are not installed yet, a right that is missing.

use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::iterator::Signals;
use tortie_api::Kind;
use tortie_facts::{Filter, Key};
use tortie_store::{Reader, Store, StoreError};
use tracing::{info, warn};

use crate::condition::Condition;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the same trouble is not told again.
const SILENCE: Duration = Duration::from_secs(60);

/// Waits until the datastore answers, as long as it takes; each trouble is told in the log and, where there is one, on
/// the Node. `false`: a signal came first. Where waiting is not asked for, the first trouble is an error.
pub fn wait(
    store: &dyn Store,
    patient: bool,
    condition: Option<&Condition>,
    signals: &mut Signals,
) -> Result<bool, StoreError> {
    let mut told: Option<(String, Instant)> = None;
    while let Err(error) = answers(store) {
        if !patient {
            return Err(error);
        }
        let text = error.to_string();
        if told.as_ref().is_none_or(|(before, at)| *before != text || at.elapsed() > SILENCE) {
            warn!(%error, "waiting for the datastore (WAIT_FOR_DATASTORE)");
            if let Some(condition) = condition {
                condition.down(&format!("waiting for the datastore: {text}"));
            }
            told = Some((text, Instant::now()));
        }
        if signals.pending().next().is_some() {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    if told.is_some() {
        info!("the datastore answers");
    }
    Ok(true)
}

/// Reads what a node reads first: one object, and a listing.
fn answers(store: &dyn Store) -> Result<(), StoreError> {
    Reader::get(store, &Key::resource(Kind::ClusterInformation, "", "default"))?;
    store.list(&Filter::Kind(Kind::IpPool)).map(drop)
}
