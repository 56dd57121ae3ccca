//! Labs that end with this process: SIGINT, SIGTERM and SIGHUP take them down before the process ends.

use std::sync::{Mutex, Once, RwLock, RwLockReadGuard};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::state::LabDir;
use crate::teardown::teardown;

static LABS: Mutex<Vec<LabDir>> = Mutex::new(Vec::new());
static HANDLER: Once = Once::new();
static GATE: RwLock<()> = RwLock::new(());

fn labs() -> std::sync::MutexGuard<'static, Vec<LabDir>> {
    LABS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Held while something is made that a lab must take down: once a signal came, nobody gets it any more.
pub(crate) fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Takes the lab down if a signal ends this process.
pub(crate) fn guard(dir: &LabDir) -> anyhow::Result<()> {
    let mut failed = None;
    HANDLER.call_once(|| failed = start().err());
    if let Some(error) = failed {
        return Err(error.into());
    }
    labs().push(dir.clone());
    Ok(())
}

/// The lab is gone, or is to stay.
pub(crate) fn release(dir: &LabDir) {
    labs().retain(|other| other.path() != dir.path());
}

fn start() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            let _closed = GATE.write();
            for dir in std::mem::take(&mut *labs()) {
                if let Err(error) = teardown(&dir) {
                    eprintln!("lab: {error:#}");
                }
            }
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("lab-signals".to_owned()).spawn(wait)?;
    Ok(())
}
