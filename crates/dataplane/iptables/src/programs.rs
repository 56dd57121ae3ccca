//! Running iptables' and ipset's programs, each with a deadline.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::error::Error;

/// How long a program may take. Tables of a hundred thousand rules take seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a program in the calling thread's network namespace and returns what it printed. It is given `input`.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A change that waits for its turn must not come after its node's end, into the tables of the next one.
    // SAFETY: between fork and exec the closure makes one system call and takes no lock.
    unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    let spawned = command.spawn();
    let no_program =
        |error: std::io::Error| Error::NoProgram { program: program.to_owned(), reason: error.to_string() };
    let mut child = spawned.map_err(no_program)?;
    started(child.id());
    let out = read(child.stdout.take());
    let err = read(child.stderr.take());
    let stdin = child.stdin.take();
    let outcome = thread::scope(|scope| {
        // A program that ends early closes its end: what it says then is the error that counts.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        let until = Instant::now() + DEADLINE;
        let left = || until.saturating_duration_since(Instant::now());
        let texts = out.recv_timeout(left()).ok().zip(err.recv_timeout(left()).ok());
        if texts.is_none() {
            end(&mut child);
        }
        texts
    });
    let Some((out, err)) = outcome else {
        return Err(Error::TooSlow { program: program.to_owned(), seconds: DEADLINE.as_secs() });
    };
    let status = child.wait().map_err(no_program)?;
    if status.success() {
        return Ok(out);
    }
    let said = err.lines().filter(|line| !line.trim().is_empty()).take(3).collect::<Vec<_>>().join("; ");
    let line = failed_line(&said).and_then(|number| input.lines().nth(number - 1)).map(str::to_owned);
    let reason = match &line {
        Some(line) => format!("{said} ({line:?})"),
        None if said.is_empty() => status.to_string(),
        None => said,
    };
    Err(Error::Refused { program: program.to_owned(), reason, line })
}

/// The processes that were started last, by which their changes are told from those of others.
static STARTED: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());
/// How many of them are kept; they are asked for after each change.
const KEPT: usize = 256;

fn started(id: u32) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.push_back(id);
    if started.len() > KEPT {
        started.pop_front();
    }
}

/// Whether a process was one of ours, by the numbers of this process' own PID namespace.
pub(crate) fn is_own(id: u32) -> bool {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
}

fn end(child: &mut Child) {
    // It may have ended by itself just now.
    let _ = child.kill();
    let _ = child.wait();
}

fn read(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What can't be read is missing from the text; the program's status still counts.
            let _ = stream.read_to_end(&mut bytes);
        }
        // Nobody waits any more after the deadline.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The number of the input's line, counted from 1, that a message names.
pub(crate) fn failed_line(said: &str) -> Option<usize> {
    let lower = said.to_ascii_lowercase();
    let rest = lower.split_once("line")?.1.trim_start_matches([':', ' ']);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_was_refused_is_found() {
        assert_eq!(failed_line("iptables-restore v1.8.9 (legacy): Error occurred at line: 12"), Some(12));
        assert_eq!(failed_line("ipset v7.17: Error in line 3: Set cannot be created"), Some(3));
        assert_eq!(failed_line("line 0"), None);
        assert_eq!(failed_line("no such thing"), None);
    }

    #[test]
    fn output_status_and_words_are_kept_apart() {
        assert_eq!(run("cat", &[], "x\n"), Ok("x\n".to_owned()));
        let refused = run("sh", &["-c", "echo 'Error in line 2: no' >&2; exit 2"], "a\nb\n");
        let reason = "Error in line 2: no (\"b\")".to_owned();
        assert_eq!(refused, Err(Error::Refused { program: "sh".to_owned(), reason, line: Some("b".to_owned()) }));
        assert!(matches!(run("no-such-program", &[], ""), Err(Error::NoProgram { .. })));
    }
}
