//! calicoctl: resources, IPAM and node status from the command line.
//!
//! [`run`] is the whole program without its process: arguments, streams and environment are arguments. Everything that
//! is given is read and checked before anything is written.

mod ask;
pub mod bgp;
mod cli;
mod commands;
mod drive;
pub mod drops;
mod files;
mod merge;
mod old;
mod print;
mod select;
mod session;
mod settings;
mod write;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue};
use tortie_store::Store;

use cli::Cli;
use session::Session;

pub use cli::DEFAULT_CONFIG;

/// The version of this program, as `calicoctl version` shows it.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// The streams and the environment of a run.
pub struct Io<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// The environment.
    pub env: BTreeMap<String, OsString>,
    /// Whether somebody watches standard error, so that long work tells how far it is.
    pub watched: bool,
}

/// The store that this process's environment or a configuration file names.
///
/// # Errors
/// A setting that is wrong, with its origin; a store that can't be opened.
pub fn open_store(config: &str) -> anyhow::Result<Arc<dyn Store>> {
    settings::open(settings::choose(config, &environment())?)
}

fn environment() -> BTreeMap<String, OsString> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}

/// Runs the program in this process; the first argument is its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let watched = io::stderr().is_terminal();
    let mut io =
        Io { stdin: &mut io::stdin().lock(), out: &mut out, err: &mut io::stderr(), env: environment(), watched };
    let code = run(&args, &mut io);
    // A reader that went away, such as `head`, is no fault of this program.
    match out.flush() {
        Ok(()) => ExitCode::from(code),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(error) => {
            eprintln!("can't write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the program: 0 if it did what it was told, 1 if not, with the reason on `io.err`.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> u8 {
    let command = cli::command();
    let parsed = command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { global, command } = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string() + &suggestion(&error);
            let _ =
                if error.use_stderr() { io.err.write_all(text.as_bytes()) } else { io.out.write_all(text.as_bytes()) };
            return u8::from(error.use_stderr());
        }
    };
    let mut session = Session::new(global, io);
    match commands::dispatch(&mut session, command) {
        Ok(()) => 0,
        Err(error) => {
            let broken_pipe =
                error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
            // A reader that went away, such as `head`, is no fault of this program.
            if !broken_pipe {
                let _ = writeln!(io.err, "{error:#}");
            }
            u8::from(!broken_pipe)
        }
    }
}

/// The nearest command to one that does not exist, where clap finds none.
fn suggestion(error: &clap::Error) -> String {
    let (Some(ContextValue::String(word)), None) =
        (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::SuggestedSubcommand))
    else {
        return String::new();
    };
    let command = cli::command();
    let names = command.get_subcommands().flat_map(|one| one.get_subcommands().chain([one]).map(|c| c.get_name()));
    let near = settings::nearest(word, names);
    near.map(|near| format!("\n  tip: a similar subcommand exists: '{near}'\n")).unwrap_or_default()
}
