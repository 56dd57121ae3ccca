//! The container runtime's part of CNI: which plugins a conflist names, and calling one as the specification says.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::node::Node;

/// Where plugins of others are looked for.
const PLUGIN_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// The conflist that nodes start with: the plugin alone, addresses from its own IPAM, of both families if `dual_stack`.
pub fn default_conflist(dual_stack: bool) -> Value {
    let mut ipam = json!({ "type": "calico-ipam" });
    if dual_stack {
        ipam["assign_ipv4"] = "true".into();
        ipam["assign_ipv6"] = "true".into();
    }
    json!({
        "name": "k8s-pod-network",
        "cniVersion": "1.0.0",
        "plugins": [{
            "type": "calico",
            "datastore_type": "sqlite",
            "log_level": "info",
            "ipam": ipam,
            "policy": { "type": "k8s" }
        }]
    })
}

/// What a plugin answered when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniFailure {
    /// The specification's error code.
    pub code: u64,
    /// Its message.
    pub msg: String,
    /// More about it; may be empty.
    pub details: String,
}

impl fmt::Display for CniFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CniFailure { code, msg, details } = self;
        write!(f, "CNI error {code}: {msg}")?;
        if details.is_empty() { Ok(()) } else { write!(f, " ({details})") }
    }
}

impl std::error::Error for CniFailure {}

/// The parameters of one call.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// `ADD`, `DEL`, `CHECK`, `VERSION`, `STATUS` or `GC`.
    pub command: &'a str,
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_NETNS`; `None` leaves it unset.
    pub netns: Option<&'a str>,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// `CNI_ARGS`.
    pub args: &'a str,
}

impl Node {
    fn conflist_path(&self) -> PathBuf {
        self.shared().dir.join(self.name()).join("etc-cni/net.d/10-calico.conflist")
    }

    /// Replaces the node's conflist.
    pub fn set_conflist(&self, conflist: &Value) -> Result<()> {
        let path = self.conflist_path();
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, serde_json::to_string_pretty(conflist)?).with_context(|| format!("write {}", path.display()))
    }

    /// The node's conflist.
    pub fn conflist(&self) -> Result<Value> {
        let path = self.conflist_path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
    }

    /// Calls a plugin with a configuration, name and version included. The outer error is that it could not be called
    /// or broke the protocol; the inner one is the plugin's own.
    pub fn cni_call(&self, plugin: &str, conf: &Value, call: &Call<'_>) -> Result<Result<Value, CniFailure>> {
        let own = self.shared().dir.join("bin");
        let dirs = std::iter::once(own.clone()).chain(PLUGIN_DIRS.iter().map(PathBuf::from));
        let path = dirs.map(|dir| dir.join(plugin)).find(|path| path.exists());
        let path = path.with_context(|| format!("no CNI plugin {plugin:?} in {} or {PLUGIN_DIRS:?}", own.display()))?;
        let mut command = self.command(&path.to_string_lossy())?;
        command.arg0(plugin);
        command.env("CNI_COMMAND", call.command).env("CNI_CONTAINERID", call.container_id);
        command.env("CNI_IFNAME", call.ifname).env("CNI_ARGS", call.args);
        command.env("CNI_PATH", format!("{}:{}", own.display(), PLUGIN_DIRS.join(":")));
        command.envs(call.netns.map(|netns| ("CNI_NETNS", netns)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start the CNI plugin {plugin}"))?;
        if let Some(mut pipe) = child.stdin.take() {
            // A plugin that fails early may not read all of it.
            let _ = pipe.write_all(conf.to_string().as_bytes());
        }
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            let answer = if stdout.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(&stdout) };
            return Ok(Ok(answer.with_context(|| format!("{plugin} {} printed no JSON: {stdout}", call.command))?));
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let Ok(answer) = serde_json::from_str::<Value>(&stdout) else {
            bail!("{plugin} {} failed, {}, without a CNI error: {stdout}{stderr}", call.command, output.status);
        };
        Ok(Err(CniFailure {
            code: answer["code"].as_u64().with_context(|| format!("{plugin}: an error without code: {answer}"))?,
            msg: answer["msg"].as_str().unwrap_or_default().to_owned(),
            details: answer["details"].as_str().unwrap_or_default().to_owned(),
        }))
    }

    /// Calls every plugin of the node's conflist in turn, backwards for DEL, each with the result of the one before.
    /// Returns the last result.
    pub fn cni_chain(
        &self,
        call: &Call<'_>,
        labels: &BTreeMap<String, String>,
        prev: Option<&Value>,
    ) -> Result<Result<Value, CniFailure>> {
        let conflist = self.conflist()?;
        let mut plugins = conflist["plugins"].as_array().context("the conflist has no plugins")?.clone();
        if call.command == "DEL" {
            plugins.reverse();
        }
        let mut result = prev.cloned().unwrap_or(Value::Null);
        for mut conf in plugins {
            let kind = conf["type"].as_str().context("a plugin without type")?.to_owned();
            conf["name"] = conflist["name"].clone();
            conf["cniVersion"] = conflist["cniVersion"].clone();
            if !labels.is_empty() && kind == "calico" {
                conf["args"] = label_args(labels);
            }
            if !result.is_null() {
                conf["prevResult"] = result.clone();
            }
            match self.cni_call(&kind, &conf, call)? {
                Ok(answer) if !answer.is_null() => result = answer,
                Ok(_) => {}
                Err(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(result))
    }
}

/// Labels in the form in which upstream's plugin takes them from runtimes other than Kubernetes.
fn label_args(labels: &BTreeMap<String, String>) -> Value {
    let list: Vec<_> = labels.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    json!({ "org.apache.mesos": { "network_info": { "labels": { "labels": list } } } })
}
