//! Running a foreign IPAM plugin such as `host-local`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Environment;
use crate::spec::{CniError, Outcome, code};

/// Runs the IPAM plugin of the configuration with the same environment and configuration, as the specification says.
///
/// Its result for ADD; `None` for commands without one. Its error, if it printed one, is passed on as it is.
pub fn run(environment: &Environment, kind: &str, conf: &Value) -> Result<Option<Outcome>, CniError> {
    let program = find(environment, kind)?;
    let failed = |error: std::io::Error| CniError::new(code::IO, format!("{}: {error}", program.display()));
    let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut input = child.stdin.take().expect("stdin is piped");
    // A plugin that ends without reading its configuration says why on its own.
    let _ = input.write_all(conf.to_string().as_bytes());
    drop(input);
    let output = child.wait_with_output().map_err(failed)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(serde_json::from_str(&printed).unwrap_or_else(|_| {
            CniError::new(code::INTERNAL, format!("the IPAM plugin {kind} ended with {}", output.status))
                .with_details(printed.trim().to_owned())
        }));
    }
    if environment.command != "ADD" {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(&printed)
        .map_err(|error| CniError::new(code::DECODE, format!("the IPAM plugin {kind} printed no result: {error}")))?;
    Outcome::from_json(&value).map(Some).map_err(|error| {
        CniError::new(code::DECODE, format!("the IPAM plugin {kind} printed a result that is wrong: {error}"))
    })
}

fn find(environment: &Environment, kind: &str) -> Result<PathBuf, CniError> {
    if kind.contains('/') || kind.contains("..") {
        return Err(CniError::new(code::INVALID_CONFIG, format!("ipam.type is {kind:?}: expected a plugin's name")));
    }
    environment.path.iter().map(|folder| PathBuf::from(folder).join(kind)).find(|path| path.is_file()).ok_or_else(
        || {
            CniError::new(
                code::INVALID_CONFIG,
                format!("ipam.type is {kind:?}, but no such plugin is in CNI_PATH {}", environment.path.join(":")),
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_plugin_outside_the_path_is_never_run() {
        let environment = Environment {
            command: "ADD".into(),
            container_id: "c".into(),
            netns: String::new(),
            ifname: "eth0".into(),
            args: BTreeMap::new(),
            path: vec!["/nowhere".into()],
        };
        for kind in ["../../bin/sh", "/bin/sh", "host-local"] {
            assert_eq!(run(&environment, kind, &Value::Null).expect_err(kind).code, code::INVALID_CONFIG);
        }
    }
}
