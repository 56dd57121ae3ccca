//! stub
use anyhow::{Result, bail};
pub(crate) struct Change<'a> {
    pub(crate) labels: &'a [String],
    pub(crate) overwrite: bool,
    pub(crate) remove: bool,
}
pub(crate) fn label(
    _: &mut crate::session::Session<'_, '_>,
    _: &str,
    _: &str,
    _: Option<&str>,
    _: Change<'_>,
) -> Result<()> {
    bail!("later")
}
