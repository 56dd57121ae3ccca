//! The network configuration: tokens filled in, checked as the plugin will check it, and put where the runtime looks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tortie_cni::conf::Conf;

use crate::{Settings, atomic, kubeconfig, secrets};

/// Words in the type of plugins that call others; a configuration of theirs before ours is as it should be.
const CALLERS: [&str; 3] = ["multus", "genie", "danm"];

/// A configuration that is ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) text: String,
    /// The plugins that it names.
    pub(crate) plugins: Vec<String>,
    /// Whether it names a kubeconfig.
    pub(crate) wants_kubeconfig: bool,
}

/// Fills in and checks; nothing is written.
pub(crate) fn prepare(settings: &Settings) -> Result<Prepared> {
    atomic::check_folder(&settings.net_dir, "/etc/cni/net.d")?;
    check_neighbours(settings)?;
    let text = fill(settings)?;
    let plugins =
        check(&text).context("the CNI configuration (CNI_NETWORK_CONFIG, key cni_network_config of the ConfigMap)")?;
    Ok(Prepared { plugins, wants_kubeconfig: text.contains(kubeconfig::FILE), text })
}

/// Whether the plugins that the configuration names are there; without one of them no pod would start.
pub(crate) fn check_plugins(settings: &Settings, prepared: &Prepared) -> Result<()> {
    let there = |name: &String| settings.bin_dirs.iter().any(|folder| folder.join(name).is_file());
    match prepared.plugins.iter().find(|name| !there(name)) {
        None => Ok(()),
        Some(missing) => bail!(
            "the CNI configuration names the plugin {missing:?}, which is not on this host: install it into /opt/cni/bin \
             (it is one of github.com/containernetworking/plugins or another program's), or take it out"
        ),
    }
}

/// Puts the configuration in place, then removes an older one of ours.
pub(crate) fn write(settings: &Settings, prepared: &Prepared) -> Result<()> {
    let path = settings.net_dir.join(&settings.conf_name);
    atomic::write(&path, 0o600, prepared.text.as_bytes())?;
    println!("install: wrote {}/{}", settings.host_net_dir, settings.conf_name);
    if settings.old_conf_name != settings.conf_name {
        let old = settings.net_dir.join(&settings.old_conf_name);
        match fs::remove_file(&old) {
            Ok(()) => println!("install: removed {}/{}", settings.host_net_dir, settings.old_conf_name),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => bail!("{} can't be removed: {error}", old.display()),
        }
    }
    Ok(())
}

fn fill(settings: &Settings) -> Result<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    let kubeconfig = format!("{}/{}", settings.host_net_dir, kubeconfig::FILE);
    let secret = |name: &str| {
        let there = settings.secrets_dir.join(name).is_file();
        if there { format!("{}/{}/{name}", settings.host_net_dir, secrets::FOLDER) } else { String::new() }
    };
    let var = |name: &str, default: &str| settings.var(name, default).to_owned();
    let mut text = settings.template.clone();
    if text.contains("__SERVICEACCOUNT_TOKEN__") {
        bail!(
            "the CNI configuration asks for a token (__SERVICEACCOUNT_TOKEN__): name __KUBECONFIG_FILEPATH__ instead"
        );
    }
    for (token, value) in [
        ("__KUBERNETES_NODE_NAME__", var("KUBERNETES_NODE_NAME", &host)),
        ("__CNI_MTU__", var("CNI_MTU", "0")),
        ("__KUBECONFIG_FILEPATH__", kubeconfig),
        ("__LOG_LEVEL__", var("LOG_LEVEL", "info")),
        ("__LOG_FILE_PATH__", var("LOG_FILE_PATH", "/var/log/calico/cni/cni.log")),
        ("__LOG_FILE_MAX_SIZE__", var("LOG_FILE_MAX_SIZE", "100")),
        ("__LOG_FILE_MAX_AGE__", var("LOG_FILE_MAX_AGE", "30")),
        ("__LOG_FILE_MAX_COUNT__", var("LOG_FILE_MAX_COUNT", "10")),
        ("__DATASTORE_TYPE__", var("DATASTORE_TYPE", "kubernetes")),
        ("__KUBERNETES_SERVICE_HOST__", var("KUBERNETES_SERVICE_HOST", "")),
        ("__KUBERNETES_SERVICE_PORT__", var("KUBERNETES_SERVICE_PORT", "")),
        ("__CALICO_API_GROUP__", var("CALICO_API_GROUP", "crd.projectcalico.org/v1")),
        ("__ETCD_ENDPOINTS__", var("ETCD_ENDPOINTS", "")),
        ("__ETCD_DISCOVERY_SRV__", var("ETCD_DISCOVERY_SRV", "")),
        ("__ETCD_CERT_FILE__", secret("etcd-cert")),
        ("__ETCD_CA_CERT_FILE__", secret("etcd-ca")),
        ("__ETCD_KEY_FILE__", secret("etcd-key")),
        ("__REQUIRE_MTU_FILE__", var("REQUIRE_MTU_FILE", "false")),
    ] {
        text = text.replace(token, &value);
    }
    Ok(text)
}

/// Every plugin of ours is read as it will be read for a pod, so that a misspelt key is told of now.
fn check(text: &str) -> Result<Vec<String>> {
    if let Some(at) = text.find("__") {
        let token: String = text[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        if token.len() > 4 && token.ends_with("__") {
            bail!("holds {token}, which is no token that is filled in: see docs/kubernetes.md for their list");
        }
    }
    let value: Value = serde_json::from_str(text).context("is no JSON after its tokens are filled in")?;
    let plugins = match value.get("plugins") {
        Some(Value::Array(plugins)) if !plugins.is_empty() => plugins.clone(),
        Some(_) => bail!("\"plugins\" is no list of plugins"),
        None => vec![value.clone()],
    };
    let mut names = Vec::new();
    for plugin in &plugins {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() {
            bail!("has a plugin without a \"type\"");
        }
        names.push(kind.to_owned());
        if kind == "calico" {
            let mut whole = plugin.clone();
            for key in ["name", "cniVersion"] {
                if let Some(inherited) = value.get(key) {
                    whole[key] = inherited.clone();
                }
            }
            Conf::from_value(&whole).map_err(|error| anyhow::anyhow!("{}", error.msg))?;
        }
    }
    if !names.iter().any(|name| name == "calico") {
        bail!("has no plugin of the type \"calico\"");
    }
    Ok(names)
}

/// A runtime takes the first configuration by name. One before ours would be used instead, silently.
fn check_neighbours(settings: &Settings) -> Result<()> {
    for name in configurations(&settings.net_dir)? {
        let own = name == settings.conf_name || name == settings.old_conf_name;
        if own || calls_others(&settings.net_dir.join(&name)) {
            continue;
        }
        if name < settings.conf_name {
            bail!(
                "{0}/{name} comes before {1} by name, so that the container runtime would use it instead: remove it, or \
                 set CNI_CONF_NAME to a name that sorts before it",
                settings.host_net_dir,
                settings.conf_name
            );
        }
        eprintln!(
            "install: warning: {}/{name} is a second CNI configuration; {} comes before it by name and is used",
            settings.host_net_dir, settings.conf_name
        );
    }
    Ok(())
}

/// Whether a configuration in a folder names the kubeconfig.
pub(crate) fn name_kubeconfig(folder: &Path) -> bool {
    let names = configurations(folder).unwrap_or_default();
    names.iter().any(|name| fs::read_to_string(folder.join(name)).is_ok_and(|text| text.contains(kubeconfig::FILE)))
}

fn configurations(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn calls_others(path: &Path) -> bool {
    let value: Value = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let first = value.pointer("/plugins/0").unwrap_or(&value);
    let kind = first.get("type").and_then(Value::as_str).unwrap_or_default();
    CALLERS.iter().any(|caller| kind.contains(caller)) || first.get("delegates").is_some()
}
