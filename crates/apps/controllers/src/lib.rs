//! The cluster's controllers as a process: what they decide is in [`tortie_control`].
//!
//! ```text
//! store-mirror -----batches----> main loop --writes--> store
//! (kubernetes-mirror) --batches-^   |  ^-- leads? -- seat --record--> store, Lease, or a locked file
//!                                   +--conditions, metrics--> http, status file
//! ```
//!
//! Several may run for one cluster: one leads, the others stand by with their pictures in sync.

mod agent;
mod collect;
mod compaction;
mod configuration;
mod copies;
mod finalizers;
mod load_balancer;
mod nodes;
mod open;
mod picture;
mod report;
mod seat;

use std::process::ExitCode;

pub use agent::{Controllers, Wiring};
pub use open::Stores;
pub use report::{Board, CheckStatus, check_status};
pub use seat::{FileSeat, KubernetesRegister, Register, Seat, StoreRegister};

/// Where upstream's image keeps the status.
pub const STATUS_FILE: &str = "/status/status.json";

/// How to run the controllers.
#[derive(Clone, Debug, clap::Args)]
pub struct ControllersArgs {
    /// File that the status is written to.
    #[arg(long, default_value = STATUS_FILE)]
    pub status_file: String,
    /// Port of the health checks over HTTP; 0 serves none.
    #[arg(long, default_value_t = 0)]
    pub health_port: u16,
}

/// Runs the controllers until a signal comes.
pub fn run(args: &ControllersArgs) -> ExitCode {
    start_log();
    match agent::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    let severity = std::env::var("LOG_LEVEL").unwrap_or_default().to_ascii_lowercase();
    let severity = match severity.as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "warning" | "warn" => "warn",
        "error" | "fatal" | "panic" => "error",
        _ => "info",
    };
    let filter = std::env::var("TORTIE_LOG").unwrap_or_else(|_| severity.to_owned());
    let lines = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::new(filter));
    let json = std::env::var("TORTIE_LOG_FORMAT").is_ok_and(|format| format == "json");
    // A second start, as in a test process, keeps the first.
    let _ = if json { lines.json().try_init() } else { lines.with_ansi(false).try_init() };
}
