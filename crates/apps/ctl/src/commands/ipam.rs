//! stub
use anyhow::{Result, bail};
pub(crate) fn ipam(_: &mut crate::session::Session<'_, '_>, _: crate::cli::Ipam) -> Result<()> {
    bail!("later")
}
