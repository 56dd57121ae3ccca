//! What the environment asks of the installer: upstream's variables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{conflist, kubeconfig};

/// Where a pod finds its credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is installed, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folders of the host for plugins, as mounted here; the first that can be written is enough.
    pub bin_dirs: Vec<PathBuf>,
    /// The host's folder for CNI configurations, as mounted here.
    pub net_dir: PathBuf,
    /// `CNI_NET_DIR`: the same folder as the host sees it.
    pub host_net_dir: String,
    /// `TLS_ASSETS_DIR`: etcd's certificates.
    pub secrets_dir: PathBuf,
    /// Further plugins that the image carries.
    pub extra_plugins: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Credentials of the pod.
    pub service_account: PathBuf,
    /// `CNI_CONF_NAME`: the configuration's file.
    pub conf_name: String,
    /// `CNI_OLD_CONF_NAME`: a file of an earlier installation that is removed.
    pub old_conf_name: String,
    /// The configuration with its tokens: `CNI_NETWORK_CONFIG_FILE`, or `CNI_NETWORK_CONFIG`, or the built-in one.
    pub template: String,
    /// `SKIP_CNI_BINARIES`.
    pub skip: Vec<String>,
    /// `UPDATE_CNI_BINARIES`: whether plugins that are there are replaced.
    pub update: bool,
    /// `SLEEP`: whether the installer stays.
    pub sleep: bool,
    /// Every variable, for the tokens.
    pub vars: BTreeMap<String, String>,
}

/// The configuration where none is given.
const TEMPLATE: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "1.0.0",
  "plugins": [
    {
      "type": "calico",
      "nodename": "__KUBERNETES_NODE_NAME__",
      "mtu": __CNI_MTU__,
      "ipam": { "type": "calico-ipam" },
      "policy": { "type": "k8s" }
    },
    { "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }
  ]
}
"#;

impl Settings {
    /// Reads the variables. An error names the variable, its value and what was expected.
    pub fn read(vars: &BTreeMap<String, String>) -> Result<Settings> {
        let text = |name: &str| vars.get(name).filter(|value| !value.is_empty()).cloned();
        let or = |name: &str, default: &str| text(name).unwrap_or_else(|| default.to_owned());
        let template = match (text("CNI_NETWORK_CONFIG_FILE"), text("CNI_NETWORK_CONFIG")) {
            (Some(file), _) => match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => bail!("CNI_NETWORK_CONFIG_FILE={file:?} can't be read: {error}"),
            },
            (None, Some(text)) => text,
            (None, None) => TEMPLATE.to_owned(),
        };
        let settings = Settings {
            bin_dirs: vec!["/host/opt/cni/bin".into(), "/host/secondary-bin-dir".into()],
            net_dir: "/host/etc/cni/net.d".into(),
            host_net_dir: or("CNI_NET_DIR", "/etc/cni/net.d"),
            secrets_dir: or("TLS_ASSETS_DIR", "/calico-secrets").into(),
            extra_plugins: "/opt/cni/bin".into(),
            program: "/proc/self/exe".into(),
            service_account: SERVICE_ACCOUNT.into(),
            conf_name: or("CNI_CONF_NAME", "10-calico.conflist"),
            old_conf_name: or("CNI_OLD_CONF_NAME", "10-calico.conflist"),
            template,
            skip: or("SKIP_CNI_BINARIES", "").split(',').map(|name| name.trim().to_owned()).collect(),
            update: flag(vars, "UPDATE_CNI_BINARIES", true)?,
            sleep: flag(vars, "SLEEP", true)?,
            vars: vars.clone(),
        };
        for (variable, name) in [("CNI_CONF_NAME", &settings.conf_name), ("CNI_OLD_CONF_NAME", &settings.old_conf_name)]
        {
            let known = [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
            if name.contains('/') || !known {
                bail!(
                    "{variable}={name:?}: expected a file's name that ends in .conflist, such as \"10-calico.conflist\""
                );
            }
        }
        Ok(settings)
    }

    /// The same for a host whose folders are not mounted elsewhere, unless they are.
    pub fn of_this_host(vars: &BTreeMap<String, String>) -> Result<Settings> {
        let mut settings = Settings::read(vars)?;
        if !settings.net_dir.is_dir() {
            settings.net_dir = settings.host_net_dir.clone().into();
            settings.bin_dirs = vec!["/opt/cni/bin".into()];
        }
        Ok(settings)
    }

    /// Whether this runs as a pod with credentials.
    pub(crate) fn in_kubernetes(&self) -> bool {
        self.service_account.join("token").exists()
    }

    /// Whether this is a pod that is to keep the kubeconfig on the host: it is there, or a configuration names it.
    pub fn keeps_kubeconfig(&self) -> bool {
        let wanted = || self.net_dir.join(kubeconfig::FILE).exists() || conflist::name_kubeconfig(&self.net_dir);
        self.in_kubernetes() && wanted()
    }

    /// A variable, or what stands for it.
    pub(crate) fn var<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.vars.get(name).map_or(default, String::as_str)
    }
}

fn flag(vars: &BTreeMap<String, String>, name: &str, default: bool) -> Result<bool> {
    match vars.get(name).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("") => Ok(default),
        Some("true" | "t" | "1" | "yes") => Ok(true),
        Some("false" | "f" | "0" | "no") => Ok(false),
        Some(other) => bail!("{name}={other:?}: expected \"true\" or \"false\""),
    }
}
