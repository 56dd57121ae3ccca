//! `calicoctl create`, `apply`, `replace` and `validate`, with upstream's messages.

use anyhow::{Result, bail};
use tortie_api::{Kind, Resource};

use crate::cli::{Input, LogLevel};
use crate::files::{self, Sources};
use crate::old;
use crate::select::Scope;
use crate::session::Session;
use crate::write::{self, BATCH, Done, Verb};

/// How a command is called, now and when it is done.
struct Words {
    present: &'static str,
    past: &'static str,
}

/// The kind of all resources, if they have one in common.
pub(super) fn single_kind(kinds: impl Iterator<Item = Kind>) -> Option<Kind> {
    let mut kinds = kinds;
    let first = kinds.next()?;
    kinds.all(|kind| kind == first).then_some(first)
}

/// Several faults as one text: the only one, or one a line.
pub(super) fn list(problems: &[String]) -> String {
    match problems {
        [one] => format!("[{one}]"),
        many => format!("[\n  {}\n]", many.join("\n  ").replace('\n', "\n  ")),
    }
}

/// Reads what is given; with the store at hand, resources of v1 get the names that they have there.
fn read(session: &mut Session<'_, '_>, input: &Input, stored: bool) -> Result<Vec<Resource>> {
    let Input { filename, recursive, skip_empty, namespace } = input;
    let sources = Sources { names: filename, recursive: *recursive, skip_empty: *skip_empty, checked: true };
    let mut loaded = files::load(sources, session.io.stdin)?;
    if stored {
        old::settle(session, &mut loaded)?;
    } else {
        old::tell(session, &loaded);
    }
    let mut resources = loaded.resources;
    Scope::of(namespace.as_deref(), false)?.place(&mut resources)?;
    session.log(LogLevel::Info, || format!("{} resources read", resources.len()));
    Ok(resources)
}

pub(crate) fn write(session: &mut Session<'_, '_>, input: &Input, verb: Verb) -> Result<()> {
    let words = match verb {
        Verb::Create { .. } => Words { present: "create", past: "created" },
        Verb::Apply => Words { present: "apply", past: "applied" },
        Verb::Replace => Words { present: "replace", past: "replaced" },
    };
    let resources = read(session, input, true)?;
    let total = resources.len();
    if total == 0 {
        return session.say("No resources specified\n");
    }
    let kind = single_kind(resources.iter().map(Resource::kind));
    let store = session.store()?;
    write::ensure_initialized(&*store)?;
    let watched = session.io.watched && total > BATCH;
    let err = &mut session.io.err;
    let mut progress = |handled: usize| {
        if watched {
            // Whoever closed standard error does not want to know.
            let _ = write!(err, "\r{handled} of {total} {}", words.past).and_then(|()| err.flush());
        }
    };
    let result = write::write_telling(&*store, verb, resources, &mut progress);
    if watched {
        let _ = writeln!(session.io.err);
    }
    let done = match result {
        Ok(done) => done,
        Err(error) => Done { problems: vec![format!("{error:#}")], ..Done::default() },
    };
    report(session, &words, kind, total, &done)
}

fn report(session: &mut Session<'_, '_>, words: &Words, kind: Option<Kind>, total: usize, done: &Done) -> Result<()> {
    let Words { present, past } = words;
    let Done { handled, wrote: _, problems, conflict: _ } = done;
    let named = kind.map(|kind| format!("'{kind}' ")).unwrap_or_default();
    if problems.is_empty() {
        return session.say(&format!("Successfully {past} {handled} {named}resource(s)\n"));
    }
    if *handled > 0 {
        session.say(&format!("Partial success: {past} the first {handled} out of {total} {named}resources:\n"))?;
        bail!("hit error: {}", list(problems));
    }
    match total {
        1 => bail!("failed to {present} {named}resource: {}", list(problems)),
        _ => bail!("failed to {present} any {named}resources: {}", list(problems)),
    }
}

pub(crate) fn validate(session: &mut Session<'_, '_>, input: &Input) -> Result<()> {
    let resources = read(session, input, false)?;
    if resources.is_empty() {
        return session.say("No resources specified\n");
    }
    let kind = single_kind(resources.iter().map(Resource::kind));
    let done = Done { handled: resources.len(), ..Done::default() };
    report(session, &Words { present: "validate", past: "validated" }, kind, resources.len(), &done)
}
