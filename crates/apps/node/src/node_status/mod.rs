//! CalicoNodeStatus: what this node reports of itself, to each resource that asks it to, as often as that says.
//!
//! Invariant: a report that says what the last one said is not written, and one that nobody asks for any more is not
//! made.

mod collect;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use tortie_api::{CalicoNodeStatus, CalicoNodeStatusSpec, CalicoNodeStatusStatus, Kind, Resource, Timestamp};
use tortie_facts::{Key, Update};
use tortie_netlink::{Handle, RouteFilter};
use tortie_store::{Reader, Store, WriteError, resource};
use tracing::warn;

use crate::agent::AgentHandle;
use crate::bgp::{Routes, Status};
use collect::{Learned, Picture};

/// Seconds between reports where the resource says nothing.
const USUAL_PERIOD: u32 = 10;
/// Others may write the resource at the same time.
const TRIES: usize = 3;

/// Tells the task of resources that ask; ends it when dropped.
pub struct Bell {
    node: String,
    sender: Sender<(String, Option<CalicoNodeStatusSpec>)>,
}

impl Bell {
    /// Takes what changed.
    pub fn observe(&self, updates: &[Update]) {
        for Update { key, value, revision: _ } in updates {
            let Key::Resource { kind: Kind::CalicoNodeStatus, namespace: _, name } = key else { continue };
            let spec = match value.as_ref().and_then(|value| value.as_resource()).map(|resource| &**resource) {
                Some(Resource::CalicoNodeStatus(asked)) if asked.spec.node == self.node => Some(asked.spec.clone()),
                _ => None,
            };
            // The task ends only with the process.
            let _ = self.sender.send((name.clone(), spec));
        }
    }
}

/// Starts the task of a node.
pub fn start(store: Arc<dyn Store>, agent: AgentHandle, node: &str) -> Result<Bell> {
    let (sender, asked) = channel();
    let reporter = Reporter { store, agent, asked: BTreeMap::new() };
    std::thread::Builder::new()
        .name("node-status".to_owned())
        .spawn(move || reporter.run(&asked))
        .context("can't start a thread")?;
    Ok(Bell { node: node.to_owned(), sender })
}

struct Asked {
    spec: CalicoNodeStatusSpec,
    /// When the next report is due; never if the resource says so.
    due: Option<Instant>,
}

struct Reporter {
    store: Arc<dyn Store>,
    agent: AgentHandle,
    asked: BTreeMap<String, Asked>,
}

impl Reporter {
    fn run(mut self, heard: &Receiver<(String, Option<CalicoNodeStatusSpec>)>) {
        loop {
            let due = self.asked.values().filter_map(|asked| asked.due).min();
            let got = match due {
                Some(due) => heard.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match got {
                Ok((name, None)) => drop(self.asked.remove(&name)),
                Ok((name, Some(spec))) => self.ask(name, spec),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.report_due(),
            }
        }
    }

    /// What was changed only by our own report asks nothing new.
    fn ask(&mut self, name: String, spec: CalicoNodeStatusSpec) {
        if self.asked.get(&name).is_none_or(|asked| asked.spec != spec) {
            self.asked.insert(name, Asked { spec, due: Some(Instant::now()) });
        }
    }

    fn report_due(&mut self) {
        let now = Instant::now();
        let picture = self.picture();
        for (name, Asked { spec, due }) in &mut self.asked {
            if due.is_none_or(|due| due > now) {
                continue;
            }
            let period = u64::from(spec.update_period_seconds.unwrap_or(USUAL_PERIOD));
            *due = (period > 0).then(|| now + Duration::from_secs(period));
            let reported = picture.as_ref().map_err(|error| anyhow!("{error:#}"));
            if let Err(error) = reported.and_then(|picture| write(&*self.store, name, picture)) {
                warn!(name, "this node's status can't be reported: {error:#}");
            }
        }
    }

    fn picture(&self) -> Result<Picture> {
        let state = self.agent.state();
        let bgp: Status = serde_json::from_value(state["bgp"].clone()).context("the agent's state of BGP")?;
        let mut learned = Vec::new();
        for peer in bgp.peers.iter().filter(|peer| peer.state == "up") {
            let told: Option<Routes> = serde_json::from_value(self.agent.bgp_routes(peer.address)).unwrap_or_default();
            let routes = told.map(|told| told.received).unwrap_or_default();
            learned.extend(routes.into_iter().map(|route| Learned {
                peer: peer.address,
                mesh: collect::is_mesh(peer),
                prefix: route.prefix,
                next_hop: route.next_hop,
                best: route.marks.iter().any(|mark| mark == "best"),
            }));
        }
        let mut kernel = Handle::open()?;
        let links = kernel.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        let routes = kernel.routes(&RouteFilter::MAIN)?;
        Ok(Picture { bgp, learned, routes, links })
    }
}

fn write(store: &dyn Store, name: &str, picture: &Picture) -> Result<()> {
    let key = Key::resource(Kind::CalicoNodeStatus, "", name);
    let mut last = None;
    for _ in 0..TRIES {
        let Some(entry) = Reader::get(store, &key)? else { return Ok(()) };
        let Some(resource) = entry.value.as_resource() else { return Ok(()) };
        let Resource::CalicoNodeStatus(stored) = &**resource else { return Ok(()) };
        let mut status = stored.status.clone();
        for class in &stored.spec.classes {
            picture.fill(*class, &mut status);
        }
        if status == stored.status && status.last_updated.is_some() {
            return Ok(());
        }
        let wanted = CalicoNodeStatus {
            status: CalicoNodeStatusStatus { last_updated: Some(now()), ..status },
            ..(**stored).clone()
        };
        match store.write_one(resource::replace(wanted.into(), resource, entry.revision)) {
            Ok(_) => return Ok(()),
            Err(error @ (WriteError::Conflict { .. } | WriteError::Missing(_))) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    last.map_or(Ok(()), |error| Err(error.into()))
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(now).unwrap_or_default();
    Timestamp::from_unix_seconds(seconds).unwrap_or_else(|| Timestamp::from_unix_seconds(0).expect("1970"))
}
