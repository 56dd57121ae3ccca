//! What the controllers tell of themselves: conditions in upstream's status file and over HTTP, and metrics.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tortie_http::Listener;
use tracing::{info, warn};

/// The loop turns several times a second, and a step against a store has a deadline; longer than this is a hang.
const MOST_SILENCE: Duration = Duration::from_secs(90);

struct State {
    /// Each condition: whether it holds, else why not.
    conditions: BTreeMap<String, Result<(), String>>,
    turned: Instant,
    metrics: String,
}

/// What is told; shared by all threads.
pub struct Board {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

impl Board {
    /// A board that is copied to this file, if given.
    pub fn new(file: Option<PathBuf>) -> Arc<Board> {
        let state = State { conditions: BTreeMap::new(), turned: Instant::now(), metrics: String::new() };
        Arc::new(Board { file, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop goes on.
    pub fn turned(&self) {
        self.lock().turned = Instant::now();
    }

    /// Sets a condition, and the file if it changed.
    pub fn set(&self, condition: &str, holds: Result<(), String>) {
        let mut state = self.lock();
        if state.conditions.get(condition) == Some(&holds) {
            return;
        }
        state.conditions.insert(condition.to_owned(), holds);
        let json = upstreams_json(&state.conditions);
        drop(state);
        let Some(file) = &self.file else { return };
        if let Err(error) = write(file, &json.to_string()) {
            warn!(file = %file.display(), %error, "the status can't be written");
        }
    }

    /// Sets the text of the metrics.
    pub fn set_metrics(&self, text: String) {
        self.lock().metrics = text;
    }

    /// Why the controllers are not ready, if they are not.
    pub fn readiness(&self) -> Result<(), String> {
        let state = self.lock();
        if state.conditions.is_empty() {
            return Err("nothing is known yet".to_owned());
        }
        let reasons: Vec<&str> =
            state.conditions.values().filter_map(|one| one.as_ref().err()).map(String::as_str).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    fn page(&self, path: &str) -> (u16, String) {
        match path {
            "/liveness" if self.lock().turned.elapsed() < MOST_SILENCE => (200, String::new()),
            "/liveness" => (503, "the loop hangs\n".to_owned()),
            "/readiness" => self.readiness().map_or_else(|reason| (503, reason), |()| (200, String::new())),
            "/metrics" => (200, self.lock().metrics.clone()),
            _ => (404, "not here\n".to_owned()),
        }
    }
}

fn upstreams_json(conditions: &BTreeMap<String, Result<(), String>>) -> Json {
    let one = |holds: &Result<(), String>| {
        let reason = holds.as_ref().err().map_or("", String::as_str);
        json!({"Ready": holds.is_ok(), "Reason": reason})
    };
    let all: serde_json::Map<String, Json> =
        conditions.iter().map(|(name, holds)| (name.clone(), one(holds))).collect();
    json!({ "Readiness": all })
}

/// Writes the file as a whole, so that no probe reads half of it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}

/// Upstream's `check-status`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckStatus {
    /// The file with the status.
    #[arg(short, long, default_value = crate::STATUS_FILE)]
    file: PathBuf,
    /// Check readiness.
    #[arg(short, long)]
    ready: bool,
    /// Check liveness.
    #[arg(short, long)]
    live: bool,
}

/// Says whether the controllers are well, by their status file.
pub fn check_status(args: &CheckStatus) -> ExitCode {
    let CheckStatus { file, ready, live } = args;
    if !ready && !live {
        println!("nothing to check: expected -r (--ready) or -l (--live)");
        return ExitCode::FAILURE;
    }
    let (well, text) = judge(file);
    println!("{text}");
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn judge(file: &Path) -> (bool, String) {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let json = read.and_then(|text| serde_json::from_str::<Json>(&text).map_err(|error| error.to_string()));
    let json = match json {
        Ok(json) => json,
        Err(error) => return (false, format!("{}: {error}", file.display())),
    };
    let Some(conditions) = json["Readiness"].as_object().filter(|conditions| !conditions.is_empty()) else {
        return (false, "nothing is known yet".to_owned());
    };
    let unready = conditions.values().filter(|one| one["Ready"] != true);
    let reasons: Vec<&str> = unready.map(|one| one["Reason"].as_str().unwrap_or_default()).collect();
    if reasons.is_empty() { (true, "Ready".to_owned()) } else { (false, reasons.join("; ")) }
}

/// Serves a board over HTTP, at every address.
pub(crate) fn listen(port: u16, board: Arc<Board>) -> io::Result<Listener> {
    let socket = tortie_http::open(tortie_http::everywhere(port))?;
    info!(port, "serving HTTP");
    Listener::start(socket, move |path| board.page(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_upstreams_and_its_check_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("status/status.json");
        assert!(!judge(&file).0, "there is none");
        let board = Board::new(Some(file.clone()));
        assert!(board.readiness().is_err(), "nothing is known");
        board.set("CalicoDatastore", Err("down".into()));
        board.set("Startup", Ok(()));
        assert_eq!(judge(&file), (false, "down".to_owned()));
        assert_eq!(board.page("/readiness"), (503, "down".to_owned()));
        board.set("CalicoDatastore", Ok(()));
        assert_eq!(judge(&file), (true, "Ready".to_owned()));
        let text = std::fs::read_to_string(&file).expect("written");
        let expected =
            r#"{"Readiness":{"CalicoDatastore":{"Ready":true,"Reason":""},"Startup":{"Ready":true,"Reason":""}}}"#;
        assert_eq!(text, expected);
        assert_eq!((board.page("/readiness").0, board.page("/liveness").0, board.page("/x").0), (200, 200, 404));
    }
}
