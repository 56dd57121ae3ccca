//! What the installer leaves on a host, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;
use tortie_install::{Settings, install, installed};

const CONFIG: &str = r#"{
  "name": "k8s-pod-network", "cniVersion": "0.3.1",
  "plugins": [
    { "type": "calico", "log_level": "info", "nodename": "__KUBERNETES_NODE_NAME__", "mtu": __CNI_MTU__,
      "etcd_endpoints": "__ETCD_ENDPOINTS__", "etcd_key_file": "__ETCD_KEY_FILE__",
      "ipam": { "type": "calico-ipam" }, "policy": { "type": "k8s" },
      "kubernetes": { "kubeconfig": "__KUBECONFIG_FILEPATH__" } },
    { "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }
  ]
}"#;

/// A host's folders, and a program to install that answers as a plugin does.
struct Host(TempDir);

impl Host {
    fn new() -> Host {
        let host = Host(tempfile::tempdir().expect("a folder"));
        for folder in ["bin", "net.d", "extra", "secrets"] {
            fs::create_dir(host.path(folder)).expect("made");
        }
        host.script("program", "#!/bin/sh\nexit 0\n");
        host.script("extra/portmap", "#!/bin/sh\nexit 0\n");
        host
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("its owner may");
    }

    fn settings(&self, vars: &[(&str, &str)]) -> Settings {
        let mut all: BTreeMap<String, String> = [
            ("CNI_NETWORK_CONFIG", CONFIG),
            ("KUBERNETES_NODE_NAME", "n1"),
            ("CNI_MTU", "1440"),
            ("ETCD_ENDPOINTS", "https://192.168.13.31:2379"),
            ("SLEEP", "false"),
        ]
        .iter()
        .chain(vars)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        all.retain(|_, value| value != "-");
        Settings {
            bin_dirs: vec![self.path("bin")],
            net_dir: self.path("net.d"),
            secrets_dir: self.path("secrets"),
            extra_plugins: self.path("extra"),
            program: self.path("program"),
            service_account: self.path("none"),
            ..Settings::read(&all).expect("the settings are good")
        }
    }

    fn refused(&self, settings: &Settings) -> String {
        let error = format!("{:#}", install(settings).expect_err("it is refused"));
        assert!(!self.path("net.d/10-calico.conflist").exists(), "a configuration was written all the same: {error}");
        error
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o777
}

#[test]
fn plugins_configuration_and_secrets_are_put_in_place() {
    let host = Host::new();
    fs::write(host.path("secrets/etcd-key"), "KEY").expect("written");
    install(&host.settings(&[])).expect("it installs");
    for name in ["bin/calico", "bin/calico-ipam", "bin/portmap"] {
        assert_eq!(mode(&host.path(name)), 0o755, "{name}");
    }
    let conflist = host.path("net.d/10-calico.conflist");
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&conflist).expect("there")).expect("JSON");
    let calico = &value["plugins"][0];
    assert_eq!(calico["mtu"], 1440);
    assert_eq!(calico["nodename"], "n1");
    assert_eq!(calico["etcd_key_file"], "/etc/cni/net.d/calico-tls/etcd-key");
    assert_eq!(calico["kubernetes"]["kubeconfig"], "/etc/cni/net.d/calico-kubeconfig");
    assert_eq!((mode(&conflist), mode(&host.path("net.d/calico-tls/etcd-key"))), (0o600, 0o600));
    let left: Vec<_> = fs::read_dir(host.path("bin")).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    install(&host.settings(&[])).expect("again");
    fs::remove_file(host.path("secrets/etcd-key")).expect("it was there");
    install(&host.settings(&[("CNI_CONF_NAME", "05-calico.conflist")])).expect("under another name");
    assert!(!conflist.exists() && host.path("net.d/05-calico.conflist").exists(), "the old one goes");
    assert!(!host.path("net.d/calico-tls").exists(), "secrets that are no more go");
}

#[test]
fn a_kubeconfig_that_could_not_be_written_is_still_wanted() {
    let host = Host::new();
    fs::create_dir(host.path("account")).expect("made");
    let at_the_host = |vars: &[(&str, &str)]| Settings { service_account: host.path("account"), ..host.settings(vars) };
    let plain = CONFIG.replace("__KUBECONFIG_FILEPATH__", "/elsewhere");
    fs::write(host.path("account/token"), "T").expect("written");
    install(&at_the_host(&[("CNI_NETWORK_CONFIG", &plain)])).expect("it installs");
    assert!(!at_the_host(&[]).keeps_kubeconfig(), "nobody names it");
    // There is nothing that the file could be made of.
    install(&at_the_host(&[])).expect("it installs all the same");
    assert!(!host.path("net.d/calico-kubeconfig").exists());
    assert!(at_the_host(&[]).keeps_kubeconfig());
    fs::remove_file(host.path("account/token")).expect("it was there");
    assert!(!at_the_host(&[]).keeps_kubeconfig(), "no pod");
}

#[test]
fn a_plugin_in_use_is_replaced_as_a_whole() {
    let host = Host::new();
    install(&host.settings(&[])).expect("it installs");
    let before = fs::File::open(host.path("bin/calico")).expect("there");
    host.script("program", "#!/bin/sh\n# newer\nexit 0\n");
    install(&host.settings(&[])).expect("again");
    let after = fs::metadata(host.path("bin/calico")).expect("there");
    assert_ne!(before.metadata().expect("open").ino(), after.ino(), "who runs the old one keeps it");
    assert_eq!(fs::metadata(host.path("bin/calico-ipam")).expect("there").ino(), after.ino());
    host.script("program", "#!/bin/sh\n# newest\nexit 0\n");
    install(&host.settings(&[("UPDATE_CNI_BINARIES", "false")])).expect("again");
    assert_eq!(fs::metadata(host.path("bin/calico")).expect("there").ino(), after.ino(), "it was to stay");
}

#[test]
fn folders_that_are_not_there_are_named() {
    let host = Host::new();
    let mut settings = host.settings(&[]);
    settings.bin_dirs = vec![host.path("nowhere")];
    let error = host.refused(&settings);
    assert!(error.contains("nowhere does not exist") && error.contains("/opt/cni/bin"), "{error}");
    let mut settings = host.settings(&[]);
    settings.net_dir = host.path("program");
    let error = host.refused(&settings);
    assert!(error.contains("no folder") && error.contains("/etc/cni/net.d"), "{error}");
}

#[test]
fn a_configuration_that_would_be_used_instead_is_named() {
    let host = Host::new();
    fs::write(host.path("net.d/05-flannel.conflist"), r#"{"plugins":[{"type":"flannel"}]}"#).expect("written");
    let error = host.refused(&host.settings(&[]));
    assert!(error.contains("05-flannel.conflist") && error.contains("10-calico.conflist"), "{error}");
    // One that calls ours, and one that comes later, are no obstacle.
    fs::rename(host.path("net.d/05-flannel.conflist"), host.path("net.d/20-flannel.conflist")).expect("renamed");
    fs::write(host.path("net.d/00-multus.conf"), r#"{"type":"multus-shim"}"#).expect("written");
    install(&host.settings(&[])).expect("it installs");
}

#[test]
fn a_wrong_configuration_is_refused_with_the_nearest() {
    let host = Host::new();
    for (from, to, parts) in [
        ("calico-ipam", "calico-ipm", ["ipam.type", "calico-ipam"]),
        ("\"log_level\"", "\"log_levle\"", ["log_levle", "log_level"]),
        ("__CNI_MTU__", "__CNI_MTUU__", ["__CNI_MTUU__", "docs/kubernetes.md"]),
        ("\"plugins\": [", "\"plugins\": [,", ["JSON", "CNI_NETWORK_CONFIG"]),
        ("\"portmap\"", "\"portmapp\"", ["portmapp", "/opt/cni/bin"]),
        ("\"type\": \"calico\",", "\"type\": \"ptp\",", ["\"calico\"", "CNI_NETWORK_CONFIG"]),
    ] {
        let error = host.refused(&host.settings(&[("CNI_NETWORK_CONFIG", &CONFIG.replacen(from, to, 1))]));
        assert!(parts.iter().all(|part| error.contains(part)), "{from} -> {to}: {error}");
    }
}

#[test]
fn a_plugin_that_does_not_run_is_told_before_a_configuration_names_it() {
    let host = Host::new();
    host.script("program", "#!/bin/sh\nexit 3\n");
    let error = host.refused(&host.settings(&[]));
    assert!(error.contains("bin/calico") && error.contains("exit status: 3"), "{error}");
}

#[test]
fn settings_that_are_wrong_are_named() {
    for (name, value) in [("SLEEP", "maybe"), ("CNI_CONF_NAME", "../x.conflist"), ("CNI_NETWORK_CONFIG_FILE", "/no/x")]
    {
        let vars = [(name.to_owned(), value.to_owned())].into();
        let error = Settings::read(&vars).expect_err(name).to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}

#[test]
fn what_was_installed_is_found_again_and_nothing_of_others() {
    let host = Host::new();
    host.script("program", "#!/bin/sh\n# TORTIE_STATE_DIR\nexit 0\n");
    let settings = host.settings(&[]);
    assert_eq!(installed(&settings), Vec::<std::path::PathBuf>::new(), "nothing is there yet");
    install(&settings).expect("it installs");
    let paths = ["net.d/10-calico.conflist", "bin/calico", "bin/calico-ipam"].map(|name| host.path(name));
    assert_eq!(installed(&settings), paths);
    host.script("bin/calico", "#!/bin/sh\nexit 0\n");
    assert_eq!(installed(&settings), Vec::<std::path::PathBuf>::new(), "another program's plugins and configuration");
}
