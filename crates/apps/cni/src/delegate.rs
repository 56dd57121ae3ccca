//! Running a foreign IPAM plugin such as `host-local`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Environment;
use crate::spec::{CniError, Outcome, code};

/// Runs the IPAM plugin of the configuration with the same configuration and the parameters of `environment`, of which
/// the command may be another than this process was called with.
///
/// Its result for ADD; `None` for commands without one. Its error, if it printed one, is passed on as it is.
pub fn run(environment: &Environment, kind: &str, conf: &Value) -> Result<Option<Outcome>, CniError> {
    let program = find(environment, kind)?;
    let failed = |error: std::io::Error| CniError::new(code::IO, format!("{}: {error}", program.display()));
    let mut command = Command::new(&program);
    // Everything else of the environment is the runtime's; the command may be another, as when ADD is undone.
    command.env("CNI_COMMAND", &environment.command).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
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
    fn a_plugin_is_told_the_command_that_it_is_run_for() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("tortie-cni-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let script = folder.join("teller");
        std::fs::write(&script, "#!/bin/sh\necho \"{\\\"code\\\":100,\\\"msg\\\":\\\"$CNI_COMMAND\\\"}\"\nexit 1\n")
            .expect("written");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its owner may");
        let environment = Environment {
            command: "DEL".into(),
            container_id: "c".into(),
            netns: String::new(),
            ifname: "eth0".into(),
            args: BTreeMap::new(),
            path: vec![folder.to_string_lossy().into_owned()],
        };
        let told = run(&environment, "teller", &Value::Null).expect_err("it fails");
        std::fs::remove_dir_all(&folder).expect("it is there");
        assert_eq!(told, CniError::new(100, "DEL"));
    }

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
