//! Puts the CNI plugins, their configuration and credentials on a node, as upstream's installer does.
//!
//! Invariant: every file on the host is replaced as a whole or left as it was, and the configuration comes last: a
//! runtime that sees it finds plugins that run. What can't be done ends with one sentence that names the path or
//! setting, also as the container's termination message.

mod atomic;
mod binaries;
mod conflist;
mod installed;
mod kubeconfig;
mod secrets;
mod settings;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

pub use installed::installed;
pub use kubeconfig::keep_current;
pub use settings::Settings;

/// Where Kubernetes reads the last words of a container.
const LAST_WORDS: &str = "/dev/termination-log";

/// How often secrets are looked at while the installer stays.
const LOOK: Duration = Duration::from_secs(10);

/// Installs as the environment says; stays afterwards if it says so.
pub fn main() -> ExitCode {
    let vars =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    match Settings::read(&vars.collect()).and_then(|settings| install(&settings).map(|()| settings)) {
        Ok(settings) => {
            if settings.sleep {
                stay(&settings)
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            let text = format!("install: {error:#}");
            eprintln!("{text}");
            if std::path::Path::new(LAST_WORDS).exists() {
                let _ = std::fs::write(LAST_WORDS, &text);
            }
            ExitCode::FAILURE
        }
    }
}

/// Keeps the secrets on the host as they are here.
fn stay(settings: &Settings) -> ! {
    loop {
        std::thread::sleep(LOOK);
        if let Err(error) = secrets::install(settings) {
            eprintln!("install: {error:#}");
        }
    }
}

/// Plugins, secrets, credentials, then the configuration.
pub fn install(settings: &Settings) -> Result<()> {
    // What is wrong with the configuration is found before anything is changed.
    let prepared = conflist::prepare(settings)?;
    binaries::install(settings)?;
    conflist::check_plugins(settings, &prepared)?;
    secrets::install(settings)?;
    if prepared.wants_kubeconfig
        && settings.in_kubernetes()
        && let Err(error) = kubeconfig::write(settings)
    {
        // The plugin asks the node and no API server, so pods come up without this file. The node writes it later.
        eprintln!("install: warning: no kubeconfig for other programs yet: {error:#}");
    }
    conflist::write(settings, &prepared)
}
