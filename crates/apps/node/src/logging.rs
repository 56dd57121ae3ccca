//! The log: lines on standard output, filtered by `TORTIE_LOG`, else by Felix's `LogSeverityScreen`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::environment::Environment;

/// Starts logging for the process. `TORTIE_LOG_FORMAT=json` makes each line a JSON object.
pub fn start(environment: &Environment) {
    let severity = match environment.felix.log_severity_screen.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "warning" | "warn" => "warn",
        "error" | "fatal" | "panic" => "error",
        _ => "info",
    };
    let filter = EnvFilter::new(environment.log_filter.as_deref().unwrap_or(severity));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE);
    // A second start, as in a test process, keeps the first.
    let _ = if environment.log_json { lines.json().try_init() } else { lines.with_ansi(false).try_init() };
}
