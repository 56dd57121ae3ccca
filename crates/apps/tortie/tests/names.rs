//! The one binary is what its name or its first argument says.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder with links to the binary under each of its names; removed at the end.
struct Links(PathBuf);

impl Links {
    fn new(test: &str) -> Links {
        let folder = std::env::temp_dir().join(format!("tortie-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for name in [
            "tortie",
            "calicoctl",
            "calico",
            "calico-ipam",
            "calico-node",
            "calico-felix",
            "install",
            "kube-controllers",
            "check-status",
        ] {
            symlink(env!("CARGO_BIN_EXE_tortie"), folder.join(name)).expect("a link");
        }
        Links(folder)
    }

    /// Runs one of the names with nothing else in the environment but what is given, and a state of its own.
    fn run(&self, name: &str, args: &[&str], vars: &[(&str, &str)], input: &str) -> Output {
        let mut child = Command::new(self.0.join(name))
            .args(args)
            .env_clear()
            .env("TORTIE_SQLITE", self.0.join("tortie.db"))
            .env("TORTIE_STATE_DIR", self.0.join("state"))
            .envs(vars.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // Who does not read its input ends before all of it is written.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        child.wait_with_output().expect("it ends")
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn by_its_name_it_is_a_cni_plugin() {
    let links = Links::new("plugin");
    let conf = r#"{"name":"n","cniVersion":"1.0.0","type":"calico"}"#;
    for name in ["calico", "calico-ipam"] {
        let version = links.run(name, &[], &[("CNI_COMMAND", "VERSION")], conf);
        assert!(version.status.success() && text(&version).contains("supportedVersions"), "{}", text(&version));
    }
    let as_argument = links.run("tortie", &["cni", "calico-ipam"], &[("CNI_COMMAND", "VERSION")], conf);
    assert!(as_argument.status.success() && text(&as_argument).contains("supportedVersions"));
}

#[test]
fn a_plugin_without_a_node_says_try_again() {
    let links = Links::new("alone");
    let conf = r#"{"name":"n","cniVersion":"1.0.0","type":"calico"}"#;
    let vars =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/proc/self/ns/net")];
    let add = links.run("calico", &[], &vars, conf);
    assert!(!add.status.success());
    assert!(text(&add).contains("\"code\":11") && text(&add).contains("tortie node"), "{}", text(&add));
}

#[test]
fn by_its_name_it_is_calicoctl() {
    let links = Links::new("ctl");
    for (name, args) in [("calicoctl", &["--help"][..]), ("tortie", &["ctl", "--help"])] {
        let help = links.run(name, args, &[], "");
        assert!(help.status.success(), "{}", text(&help));
        for command in ["create", "apply", "ipam", "node"] {
            assert!(text(&help).contains(command), "{name}: no {command} in {}", text(&help));
        }
    }
}

#[test]
fn by_its_name_it_is_the_node_and_refuses_what_is_misspelt() {
    let links = Links::new("node");
    for (name, args) in [("calico-node", &[][..]), ("calico-felix", &[]), ("tortie", &["node"])] {
        let node = links.run(name, args, &[("CALICO_NETWORKING_BACKEND", "brid")], "");
        assert_eq!(node.status.code(), Some(1), "{name}");
        assert!(text(&node).contains("CALICO_NETWORKING_BACKEND") && text(&node).contains("\"bird\""), "{name}");
    }
    assert!(!links.0.join("tortie.db").exists(), "nothing was written before the settings were checked");
}

#[test]
fn a_misspelt_program_is_named_with_the_nearest() {
    let links = Links::new("typo");
    let typo = links.run("tortie", &["dmeo"], &[], "");
    assert!(!typo.status.success() && text(&typo).contains("'demo'"), "{}", text(&typo));
}

#[test]
fn a_reader_that_went_away_is_no_fault() {
    let links = Links::new("pipe");
    for (name, args) in [
        ("tortie", &["completion", "bash"][..]),
        ("tortie", &["lab", "status"]),
        ("tortie", &["node", "addresses"]),
        ("calicoctl", &["completion", "bash"]),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Command::new(links.0.join(name))
            .args(args)
            .env_clear()
            .env("TORTIE_STATE_DIR", links.0.join("state"))
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("it ends");
        let said = text(&output);
        assert!(output.status.success() && !said.contains("panicked") && !said.contains("pipe"), "{args:?}: {said}");
    }
}

#[test]
fn upstreams_commands_are_answered() {
    let links = Links::new("component");
    let nobody = [("FELIX_HEALTHPORT", "1"), ("CALICO_NODENAME_FILE", "/nonexistent")];
    // What asks the node says that nobody answers.
    for (name, args) in [
        ("calico-node", &["-felix-live", "-bird-live"][..]),
        ("calico-node", &["-felix-ready", "-bird-ready"]),
        ("calico-node", &["--bird-ready"]),
        ("calico", &["component", "node", "health", "--felix-live", "--bird-live"]),
        ("calico", &["health", "--port=1", "--type=liveness"]),
        ("tortie", &["component", "node", "health", "--felix-ready"]),
    ] {
        let output = links.run(name, args, &nobody, "");
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {}", text(&output));
        assert!(text(&output).contains("answer"), "{name} {args:?}: {}", text(&output));
    }
    // What a node without BGP is asked about BGP is no fault.
    let vxlan = [("CALICO_NETWORKING_BACKEND", "vxlan")];
    assert!(links.run("calico-node", &["-bird-ready"], &vxlan, "").status.success());
    // Steps that the agent does itself, and those that need nothing.
    for (name, args) in [
        ("calico", &["component", "node", "init", "--best-effort"][..]),
        ("calico", &["component", "node", "shutdown"]),
        ("calico", &["component", "node", "allocate-tunnel-addrs", "--run-once"]),
        ("calico-node", &["-startup"]),
        ("calico-node", &["-v"]),
        ("calico-ipam", &["-upgrade"]),
    ] {
        let output = links.run(name, args, &[], "");
        assert!(output.status.success() && !text(&output).is_empty(), "{name} {args:?}: {}", text(&output));
    }
    for args in [&["component", "typha"][..], &["component", "node", "bpf"], &["component", "goldmane"]] {
        let output = links.run("calico", args, &[], "");
        assert!(output.status.code() == Some(1) && text(&output).contains("not in this version"), "{}", text(&output));
    }
    // A runtime that calls the plugin by an absolute name is not misled by its first argument being none.
    let as_plugin = links.run("calico", &[], &[("CNI_COMMAND", "VERSION")], "{}");
    assert!(as_plugin.status.success());
    let install = links.run("install", &[], &[("CNI_CONF_NAME", "a/b")], "");
    assert!(install.status.code() == Some(1) && text(&install).contains("CNI_CONF_NAME"), "{}", text(&install));
}

#[test]
fn the_controllers_probe_tells_of_a_status_that_is_not_there() {
    let links = Links::new("check-status");
    for flag in ["-r", "-l"] {
        let output = links.run("check-status", &[flag, "--file", "/nowhere/status.json"], &[], "");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    }
    let help = links.run("kube-controllers", &["--help"], &[], "");
    assert!(help.status.success(), "{}", text(&help));
}
