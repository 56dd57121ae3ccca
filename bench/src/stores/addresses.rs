//! One node's address management on etcd: assign and release as the node does them, with what it knows of its own
//! blocks in mind, beside the bare round trips that those need.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tortie_datastore::ipam;
use tortie_facts::{Key, Value};
use tortie_ipam::{
    Answer, Ask, Assign, CasWrite, Client, Fact, Holder, Machine, Outcome, Owner, Plan, ReleaseHandle, Request,
    Settings, View, drive,
};
use tortie_net::Family;
use tortie_store::{Expect, Reader, Store, Write};
use tortie_store_etcd::EtcdStore;

/// What one process saw; times are milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Each assignment.
    pub assign: Vec<f64>,
    /// Each release.
    pub release: Vec<f64>,
    /// As many bare round trips as an assignment makes: one transaction with two writes of the same size.
    pub bare_assign: Vec<f64>,
    /// The same for a release: a read and such a transaction.
    pub bare_release: Vec<f64>,
    /// Calls of the store that wrote.
    pub writes: usize,
    /// Those of them that met another's change.
    pub conflicts: usize,
}

struct Node {
    store: EtcdStore,
    name: String,
    settings: Arc<Settings>,
    /// What this node wrote last, which it offers as hints.
    known: RefCell<BTreeMap<Key, Fact>>,
    seen: RefCell<Seen>,
}

/// The program: `addresses ENDPOINTS NODE COUNT` prints what it saw as JSON.
pub fn program(args: &[String]) -> Result<()> {
    let [endpoints, name, count] = args else { bail!("expected addresses ENDPOINTS NODE COUNT") };
    let store = super::open(endpoints)?;
    let settings = ipam::settings(&store)?;
    let node = Node { store, name: name.clone(), settings, known: RefCell::default(), seen: RefCell::default() };
    // The first address claims the node's block, and is not counted.
    node.assign("warm-up")?;
    node.seen.replace(Seen::default());
    for n in 0..count.parse::<usize>()? {
        let handle = format!("k8s-pod-network.{name}-{n}");
        let took = node.assign(&handle)?;
        let bare = node.bare(false)?;
        node.seen.borrow_mut().assign.push(took);
        node.seen.borrow_mut().bare_assign.push(bare);
        let took = node.release(&handle)?;
        let bare = node.bare(true)?;
        node.seen.borrow_mut().release.push(took);
        node.seen.borrow_mut().bare_release.push(bare);
    }
    println!("{}", serde_json::to_string(&node.seen.into_inner())?);
    Ok(())
}

impl Node {
    fn assign(&self, handle: &str) -> Result<f64> {
        let attrs = [("pod", "p"), ("namespace", "default"), ("node", self.name.as_str())];
        let attrs = attrs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let holder = Holder { handle: Some(handle.to_owned()), attrs };
        let request = Request::one(Client::workload(self.name.as_str()), holder, Family::V4);
        let mut view = self.hints();
        view.hint_no_handle(handle);
        self.timed(Assign::new(request, self.settings.clone(), ipam::now()), view)
    }

    fn release(&self, handle: &str) -> Result<f64> {
        self.timed(ReleaseHandle::new(handle, self.settings.config.ip_cooldown_seconds, ipam::now()), self.hints())
    }

    fn hints(&self) -> View {
        let mut view = View::default();
        let known = self.known.borrow();
        for fact in known.values() {
            view.hint(fact.clone());
        }
        if known.keys().any(|key| matches!(key, Key::Affinity(_))) {
            view.hint_all_affinities(&Owner::host(self.name.as_str()));
        }
        view
    }

    fn timed<P: Plan>(&self, plan: P, view: View) -> Result<f64> {
        let begun = Instant::now();
        drive(&mut Machine::new(plan, view), |ask| self.answer(ask))??;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    fn answer(&self, ask: Ask) -> Result<Answer> {
        let Ask::Write(asked) = &ask else { return Ok(ipam::answer(&self.store, ask)?) };
        let asked = asked.clone();
        let answer = ipam::answer(&self.store, ask)?;
        let Answer::Wrote(outcomes) = &answer else { bail!("a write is answered with its outcome") };
        let mut seen = self.seen.borrow_mut();
        seen.writes += 1;
        seen.conflicts += usize::from(outcomes.contains(&Outcome::Conflict));
        for (write, outcome) in asked.into_iter().zip(outcomes) {
            self.learn(write, outcome);
        }
        Ok(answer)
    }

    fn learn(&self, CasWrite { key, expect: _, value }: CasWrite, outcome: &Outcome) {
        let mut known = self.known.borrow_mut();
        match (outcome, value) {
            (Outcome::Done(revision), Some(value)) if matches!(key, Key::Block(_) | Key::Affinity(_)) => {
                known.insert(key.clone(), Fact { key, value, revision: *revision });
            }
            (Outcome::Done(_) | Outcome::Conflict, _) => drop(known.remove(&key)),
            (Outcome::NotTried | Outcome::Failed(_), _) => {}
        }
    }

    /// Two writes in one transaction, after a read if wanted, of the sizes that a block and a handle have.
    fn bare(&self, read: bool) -> Result<f64> {
        let key = |what: &str| Key::Handle(format!("bare-{what}-{}", self.name));
        let known = self.known.borrow();
        let block = known.values().find_map(|fact| fact.value.as_block().cloned());
        let Some(block) = block else { bail!("the node has no block") };
        // The text of a block under a key that keeps any text.
        let text: Arc<str> = Arc::from(Value::Block(block).to_json());
        let status = Key::Status(format!("v2/no-region/host/{}/last_reported_status", self.name));
        let writes = [
            Write { key: status, expect: Expect::Any, value: Some(Value::Status(text)) },
            Write { key: key("handle"), expect: Expect::Any, value: Some(Value::Handle(Arc::default())) },
        ];
        let begun = Instant::now();
        if read {
            Reader::get(&self.store, &key("handle"))?;
        }
        self.store.write_all(&writes)?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
