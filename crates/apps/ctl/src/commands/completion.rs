//! `calicoctl completion`.

use anyhow::Result;
use clap_complete::Shell;

use crate::cli;
use crate::session::Session;

pub(crate) fn completion(session: &mut Session<'_, '_>, shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "calicoctl", &mut script);
    Ok(session.io.out.write_all(&script)?)
}
