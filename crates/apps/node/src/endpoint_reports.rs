//! The status of each endpoint that upstream's Felix writes into etcd when `endpointReportingEnabled` says so: `up`,
//! `down`, or `error` for a host endpoint that no interface matches.
//!
//! What is written is compared with what should be there: what another one changed, or an earlier run left, is put right
//! at the next resync. Whether it can be written never holds up anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};
use tortie_api::FelixConfigurationSpec;
use tortie_api::wep::EndpointName;
use tortie_desired::{EndpointId, HostInterface};
use tortie_facts::{Filter, Key, Value};
use tortie_netlink::Handle;
use tortie_store::{Expect, Store, StoreError, Write, WriteError};
use tracing::warn;

use crate::agent::{AgentHandle, Local};
use crate::reports;

/// Everything is compared with the store once in so many delays, as upstream.
const RESYNC: u32 = 180;

/// Paths below `/calico/felix/` with the status under each.
type Statuses = BTreeMap<String, String>;

/// Starts to report, if the settings say so.
pub fn start(store: Arc<dyn Store>, agent: AgentHandle, node: &str, felix: &FelixConfigurationSpec) -> Result<()> {
    if felix.endpoint_reporting_enabled != Some(true) {
        return Ok(());
    }
    let delay = felix.endpoint_reporting_delay.map_or(Duration::from_secs(1), |delay| delay.as_std());
    let delay = delay.max(Duration::from_millis(100));
    let place = Place { region: reports::region(felix), node: node.to_owned() };
    let mut kernel = Handle::open()?;
    let report = move || {
        let (mut held, mut resync_at) = (Statuses::new(), Instant::now());
        loop {
            std::thread::sleep(delay);
            let Some(endpoints) = agent.endpoints() else { continue };
            if resync_at <= Instant::now() {
                match place.read(&*store) {
                    Ok(found) => (held, resync_at) = (found, Instant::now() + delay * RESYNC),
                    Err(error) => {
                        warn!(%error, "the status of endpoints can't be read");
                        continue;
                    }
                }
            }
            let running = match kernel.links() {
                Ok(links) => {
                    links.into_iter().map(|link| (link.name, link.up && link.running)).collect::<BTreeMap<_, _>>()
                }
                Err(error) => {
                    warn!(%error, "the node's interfaces can't be read: the status of endpoints stays as it is");
                    continue;
                }
            };
            let wanted = endpoints.iter().filter_map(|one| place.status(one, &running)).collect();
            if let Err(error) = bring(&*store, &wanted, &mut held) {
                warn!(%error, "the status of endpoints can't be written");
            }
        }
    };
    std::thread::Builder::new().name("endpoint-reports".to_owned()).spawn(report).context("can't start a thread")?;
    Ok(())
}

/// Whose endpoints.
struct Place {
    region: String,
    node: String,
}

impl Place {
    /// Where a workload's status is: upstream's key.
    fn workload(&self, id: &EndpointId) -> Option<String> {
        let Place { region, node } = self;
        let EndpointId { namespace, name } = id;
        let EndpointName { node: _, orchestrator, workload, endpoint } = EndpointName::split(name)?;
        let [orchestrator, workload, endpoint] =
            [orchestrator, format!("{namespace}/{workload}"), endpoint].map(|part| escape(&part));
        Some(format!("v2/{region}/host/{node}/workload/{orchestrator}/{workload}/endpoint/{endpoint}"))
    }

    /// Where a host endpoint's status is: upstream's key, in which regions have no part.
    fn host(&self, name: &str) -> String {
        format!("v1/host/{}/endpoint/{}", self.node, escape(name))
    }

    /// An endpoint's path and status, by the interfaces that are there and whether they run.
    fn status(&self, endpoint: &Local, running: &BTreeMap<String, bool>) -> Option<(String, String)> {
        let runs = |interface: &str| running.get(interface).copied();
        let word = |up: bool| if up { "up" } else { "down" };
        let (path, status) = match endpoint {
            Local::Workload { id, interface, programmed } => {
                (self.workload(id)?, word(*programmed && runs(interface) == Some(true)))
            }
            Local::Host { name, interfaces } => {
                let found: Vec<bool> = interfaces
                    .iter()
                    .filter_map(|interface| match interface {
                        // Single interfaces do not count where all are meant, as upstream.
                        HostInterface::All => Some(true),
                        HostInterface::Named(name) => runs(name),
                    })
                    .collect();
                let status = if found.is_empty() { "error" } else { word(found.iter().all(|up| *up)) };
                (self.host(name), status)
            }
        };
        Some((path, status.to_owned()))
    }

    /// What the store holds of this node's endpoints; what can't be read counts as a status of no name.
    fn read(&self, store: &dyn Store) -> Result<Statuses, StoreError> {
        let Place { region, node } = self;
        let prefixes = [format!("v2/{region}/host/{node}/workload/"), format!("v1/host/{node}/endpoint/")];
        let listing = store.list(&Filter::Any(prefixes.map(Filter::Statuses).to_vec()))?;
        let mut found = Statuses::new();
        for entry in listing.entries {
            if let (Key::Status(path), Value::Status(text)) = (entry.key, entry.value) {
                let value: Json = serde_json::from_str(&text).unwrap_or_default();
                found.insert(path, value["status"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(found)
    }
}

/// As upstream escapes the names in such keys.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

/// Writes what differs, and remembers it; stops at the first write that fails.
fn bring(store: &dyn Store, wanted: &Statuses, held: &mut Statuses) -> Result<(), WriteError> {
    let paths: BTreeSet<String> = wanted.keys().chain(held.keys()).cloned().collect();
    for path in paths {
        let status = wanted.get(&path);
        if status == held.get(&path) {
            continue;
        }
        let value = status.map(|status| Value::Status(json!({ "status": status }).to_string().as_str().into()));
        match store.write_one(Write { key: Key::Status(path.clone()), expect: Expect::Any, value }) {
            Ok(_) => {}
            // Somebody else has deleted it.
            Err(WriteError::Missing(_)) if status.is_none() => {}
            Err(error) => return Err(error),
        }
        match status {
            Some(status) => held.insert(path, status.clone()),
            None => held.remove(&path),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_store::{MemoryStore, Reader};

    fn place() -> Place {
        Place { region: "no-region".to_owned(), node: "n1".to_owned() }
    }

    fn workload(interface: &str, programmed: bool) -> Local {
        let id = EndpointId { namespace: "shop".into(), name: "n1-k8s-web--1-eth0".into() };
        Local::Workload { id, interface: interface.into(), programmed }
    }

    #[test]
    fn keys_are_upstreams() {
        let key = |path| Key::Status(path).path();
        let id = EndpointId { namespace: "shop".into(), name: "n1-k8s-web--1-eth0".into() };
        assert_eq!(
            place().workload(&id).map(key).as_deref(),
            Some("/calico/felix/v2/no-region/host/n1/workload/k8s/shop%2fweb-1/endpoint/eth0")
        );
        assert_eq!(key(place().host("a%/b")), "/calico/felix/v1/host/n1/endpoint/a%25%2fb");
    }

    #[test]
    fn a_status_follows_the_interface_and_the_rules() {
        let running =
            BTreeMap::from([("cali1".to_owned(), true), ("eth0".to_owned(), true), ("eth1".to_owned(), false)]);
        let of = |endpoint: &Local| place().status(endpoint, &running).map(|(_, status)| status).unwrap_or_default();
        assert_eq!(of(&workload("cali1", true)), "up");
        assert_eq!(of(&workload("cali1", false)), "down");
        assert_eq!(of(&workload("cali2", true)), "down");
        let host = |names: &[&str]| {
            let interfaces = names.iter().map(|name| match *name {
                "*" => HostInterface::All,
                name => HostInterface::Named(name.into()),
            });
            of(&Local::Host { name: "h".into(), interfaces: interfaces.collect() })
        };
        let seen = [&["eth0"][..], &["eth0", "eth1"], &["gone"], &[], &["*"]].map(host);
        assert_eq!(seen, ["up", "down", "error", "error", "up"]);
    }

    #[test]
    fn the_store_is_brought_to_what_is_wanted_and_no_further() {
        let store = MemoryStore::new();
        let put = |path: &str, text: &str| {
            let value = Some(Value::Status(text.into()));
            store.write_one(Write { key: Key::Status(path.to_owned()), expect: Expect::Any, value }).expect("written");
        };
        let (own, host) = ("v2/no-region/host/n1/workload/k8s/a%2fb/endpoint/eth0", "v1/host/n1/endpoint/h");
        let foreign = "v2/no-region/host/n10/workload/k8s/a%2fb/endpoint/eth0";
        for path in [own, foreign, "v2/no-region/host/n1/status"] {
            put(path, r#"{"status":"down"}"#);
        }
        put("v1/host/n1/endpoint/old", "no JSON");
        let mut held = place().read(&store).expect("a listing");
        assert_eq!(held.keys().collect::<Vec<_>>(), ["v1/host/n1/endpoint/old", own]);
        let wanted = Statuses::from([(own.to_owned(), "up".to_owned()), (host.to_owned(), "error".to_owned())]);
        bring(&store, &wanted, &mut held).expect("written");
        assert_eq!(held, wanted);
        assert_eq!(place().read(&store).expect("a listing"), wanted);
        let others = store.get(&Key::Status(foreign.to_owned())).expect("a read");
        assert!(others.is_some(), "another node's");
        bring(&store, &Statuses::new(), &mut held).expect("deleted");
        assert_eq!(place().read(&store).expect("a listing"), Statuses::new());
    }
}
