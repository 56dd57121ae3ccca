//! stub
use anyhow::{Result, bail};
pub(crate) fn status(_: &mut crate::session::Session<'_, '_>, _: crate::cli::StatusFormat) -> Result<()> {
    bail!("later")
}
