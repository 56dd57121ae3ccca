//! What every command has at hand: the global flags, the streams, and the store once it is wanted.

use std::sync::Arc;

use anyhow::{Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::Key;
use tortie_store::{Reader, Store};

use crate::cli::{Global, LogLevel};
use crate::{Io, VERSION, settings};

/// The state of one run.
pub(crate) struct Session<'a, 'b> {
    pub(crate) global: Global,
    pub(crate) io: &'a mut Io<'b>,
}

impl<'a, 'b> Session<'a, 'b> {
    pub(crate) fn new(global: Global, io: &'a mut Io<'b>) -> Self {
        Session { global, io }
    }

    /// Writes to standard output.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.io.out.write_all(text.as_bytes())?)
    }

    /// Writes a warning to standard error.
    pub(crate) fn warn(&mut self, text: &str) {
        // Whoever closed standard error does not want to know.
        let _ = writeln!(self.io.err, "WARNING: {text}");
    }

    /// Writes something worth knowing to standard error.
    pub(crate) fn notice(&mut self, text: &str) {
        let _ = writeln!(self.io.err, "NOTICE: {text}");
    }

    /// Writes a step to standard error if the log level asks for it.
    pub(crate) fn log(&mut self, level: LogLevel, text: impl FnOnce() -> String) {
        if level <= self.global.log_level {
            let word = format!("{level:?}").to_lowercase();
            let _ = writeln!(self.io.err, "level={word} {}", text());
        }
    }

    /// Opens the store that the settings name.
    pub(crate) fn open(&mut self) -> Result<Arc<dyn Store>> {
        let choice = settings::choose(&self.global.config, &self.io.env)?;
        self.log(LogLevel::Info, || format!("datastore: {choice:?}"));
        settings::open(choice)
    }

    /// Opens the store and makes sure that the cluster runs the version of this program.
    pub(crate) fn store(&mut self) -> Result<Arc<dyn Store>> {
        let store = self.open()?;
        if !self.global.allow_version_mismatch {
            same_version(&*store)?;
        }
        Ok(store)
    }
}

fn core_version(text: &str) -> &str {
    let text = text.strip_prefix('v').unwrap_or(text);
    text.split_once('-').map_or(text, |(core, _)| core)
}

fn same_version(store: &dyn Store) -> Result<()> {
    let entry = Reader::get(store, &Key::resource(Kind::ClusterInformation, "", "default"))?;
    let Some(Resource::ClusterInformation(info)) = entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r)
    else {
        return Ok(());
    };
    let cluster = info.spec.calico_version.as_str();
    if !cluster.is_empty() && core_version(cluster) != core_version(VERSION) {
        bail!(
            "version mismatch.\nClient Version:   {VERSION}\nCluster Version:  {cluster}\nUse --allow-version-mismatch to override"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_without_their_ornaments() {
        assert_eq!(core_version("v1.2.3-rc1"), core_version("1.2.3"));
        assert_ne!(core_version("v1.2.3"), core_version("v1.2.4"));
    }
}
