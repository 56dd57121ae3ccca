//! What Kubernetes is told of this node: the condition NetworkUnavailable of its Node. A cluster's scheduler keeps pods
//! away while it is true; its message says what the node waits for.
//!
//! Telling is never needed for the network itself: where it can't be told, the log says so, and the node goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use tortie_store_kubernetes::{Cluster, Options};
use tracing::{info, warn};

use crate::agent::AgentHandle;
use crate::environment::{Backend, Environment};
use crate::health::Health;

/// How long one attempt to tell may take: a node must not wait long for a server that may be away.
const DEADLINE: Duration = Duration::from_secs(3);
/// The pause between two looks at whether the node is ready.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause after an attempt that failed.
const AGAIN: Duration = Duration::from_secs(30);
/// A node that is not ready for this long tells why.
const SILENCE: Duration = Duration::from_secs(20);
/// As upstream: a peer that stays away does not keep pods from a node for longer than this.
const BGP_PATIENCE: Duration = Duration::from_secs(300);

/// Who tells.
#[derive(Clone)]
pub struct Condition {
    cluster: Arc<Cluster>,
    node: String,
}

impl Condition {
    /// For the node of this name; `None` where there is no Kubernetes, or the node gives pods no network.
    pub fn of(environment: &Environment, name: &str) -> Result<Option<Condition>> {
        let Some(options) = environment.kubernetes.clone().filter(|_| environment.backend != Backend::None) else {
            return Ok(None);
        };
        let options = Options { deadline: Some(DEADLINE), ..options };
        let cluster = Arc::new(Cluster::open(options).context("can't start a thread")?);
        let node = environment.kubernetes_node.clone().unwrap_or_else(|| name.to_owned());
        Ok(Some(Condition { cluster, node }))
    }

    /// Says that pods can't have a network now, and why; false if it could not be told.
    pub fn down(&self, why: &str) -> bool {
        self.tell(false, why)
    }

    fn tell(&self, available: bool, why: &str) -> bool {
        let told = self.cluster.set_network(&self.node, available, why);
        match &told {
            Ok(()) => info!(node = self.node, available, why, "told Kubernetes of the node's network"),
            Err(error) => warn!(%error, node = self.node, available, "can't tell Kubernetes of the node's network"),
        }
        told.is_ok()
    }

    /// Clears the condition once the node is ready; in a thread of its own.
    pub fn follow(self, health: Arc<Health>, agent: AgentHandle) -> Result<()> {
        let run = move || {
            let started = Instant::now();
            let mut told = String::new();
            loop {
                let mut pause = PAUSE;
                match unready(&health, &agent.state(), started.elapsed()) {
                    None => {
                        if self.tell(true, "") {
                            return;
                        }
                        pause = AGAIN;
                    }
                    Some(why) if started.elapsed() >= SILENCE && told != why => {
                        self.down(&why);
                        told = why;
                    }
                    Some(_) => {}
                }
                std::thread::sleep(pause);
            }
        };
        std::thread::Builder::new().name("condition".to_owned()).spawn(run).context("can't start a thread")?;
        Ok(())
    }
}

/// What the node waits for, if it does.
fn unready(health: &Health, state: &Value, age: Duration) -> Option<String> {
    if let Err(why) = health.readiness() {
        let trouble = state["datastore"].as_str().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        return Some(format!("{}{trouble}", why.trim()));
    }
    let bgp = &state["bgp"];
    if let Some(fault) = bgp["fault"].as_str() {
        return Some(fault.to_owned());
    }
    let peers = bgp["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing: Vec<&str> =
        peers.iter().filter(|peer| peer["info"] != "Established").filter_map(|peer| peer["address"].as_str()).collect();
    (!missing.is_empty() && age < BGP_PATIENCE).then(|| format!("BGP not established with {}", missing.join(",")))
}

/// Tells Kubernetes that this node's network ends, as a container's hook before its end does upstream.
pub fn shutdown() -> Result<bool> {
    let environment = Environment::from_process(tortie_datastore::Felix::Last).map_err(|faults| {
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(texts.join("; "))
    })?;
    let name = crate::startup::node_name(&environment)?;
    Ok(Condition::of(&environment, &name)?.is_some_and(|condition| condition.down("the node agent is shutting down")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_ready_when_the_kernel_and_the_peers_are() {
        let health = Health::default();
        let young = Duration::from_secs(1);
        let why = unready(&health, &json!({ "datastore": "may not list pods" }), young).expect("not in sync");
        assert!(why.contains("in sync") && why.contains("may not list pods"), "{why}");
        health.set_in_sync();
        assert_eq!(unready(&health, &json!({ "bgp": null }), young), None);
        let one_away = json!({ "bgp": { "peers": [
            { "address": "10.0.0.1", "info": "Established" }, { "address": "10.0.0.2", "info": "idle" } ] } });
        assert!(unready(&health, &one_away, young).expect("a peer is away").contains("10.0.0.2"));
        assert_eq!(unready(&health, &one_away, BGP_PATIENCE), None, "it is not waited for forever");
        assert!(unready(&health, &json!({ "bgp": { "fault": "port 179 is taken" } }), BGP_PATIENCE).is_some());
    }
}
