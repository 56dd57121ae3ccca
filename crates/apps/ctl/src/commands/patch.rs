//! stub
use anyhow::{Result, bail};
pub(crate) fn patch(
    _: &mut crate::session::Session<'_, '_>,
    _: &str,
    _: &str,
    _: Option<&str>,
    _: &str,
    _: crate::cli::PatchType,
) -> Result<()> {
    bail!("later")
}
