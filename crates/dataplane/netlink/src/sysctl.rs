//! Network sysctls of the calling thread's network namespace, by dotted or slashed name below `net`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const ROOT: &str = "/proc/sys/net";

/// The file of a sysctl below `/proc/sys/net`, from its path parts, such as `["ipv4", "conf", "cali1", "forwarding"]`.
/// Parts are taken as they are, so an interface name may hold dots.
pub fn sysctl_path(parts: &[&str]) -> PathBuf {
    parts.iter().fold(PathBuf::from(ROOT), |path, part| path.join(part))
}

/// Reads a sysctl, without the final newline. [`Error::NotFound`]: this kernel, or this interface, has no such setting.
pub fn sysctl_read(parts: &[&str]) -> Result<String> {
    let path = checked(parts)?;
    let text = fs::read_to_string(&path).map_err(|e| Error::from_io(e, format!("read {}", path.display())))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a sysctl.
pub fn sysctl_write(parts: &[&str], value: &str) -> Result<()> {
    let path = checked(parts)?;
    fs::write(&path, value).map_err(|e| Error::from_io(e, format!("write {value:?} to {}", path.display())))
}

/// Writes a sysctl unless it has the value already; `true` when it was written.
pub fn sysctl_write_if_different(parts: &[&str], value: &str) -> Result<bool> {
    if sysctl_read(parts)? == value {
        return Ok(false);
    }
    sysctl_write(parts, value).map(|()| true)
}

fn checked(parts: &[&str]) -> Result<PathBuf> {
    let wrong = |part: &&&str| part.is_empty() || **part == "." || **part == ".." || part.contains(['/', '\0']);
    if let Some(part) = parts.iter().find(wrong) {
        return Err(Error::invalid(format!("sysctl path part {part:?}"), "expected one file name"));
    }
    let path = sysctl_path(parts);
    debug_assert!(path.starts_with(Path::new(ROOT)));
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_leaves_the_directory_is_refused() {
        for wrong in ["..", "", "a/b", "."] {
            assert!(matches!(sysctl_write(&["ipv4", wrong], "1"), Err(Error::Invalid { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_missing_sysctl_is_not_found() {
        let error = sysctl_read(&["ipv4", "conf", "no-such-interface", "forwarding"]).unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
}
