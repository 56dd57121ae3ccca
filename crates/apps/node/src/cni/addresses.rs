//! Addresses for pods: drives the pure steps of IPAM against the store, with this node's own blocks kept in mind.
//!
//! What the node watches is offered to the steps as hints, so that an address of a block that is this node's costs one
//! write and no read. A hint that is old costs a conflict and a second look, never an address.

mod apart;
mod later;
mod together;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tortie_api::{IpPoolAllowedUse, Kind, LabelMap};
use tortie_cni::conf::{Conf, TextBool};
use tortie_cni::spec::{Address, CniError, Outcome as CniOutcome, code};
use tortie_cni::wire::Request as Call;
use tortie_datastore::ipam;
use tortie_facts::{Filter, Key, Update, Value};
use tortie_ipam::{
    Answer, Ask as Question, Assign, AssignAt, CasWrite, Client, Fact, Holder, IpamError, Machine, Outcome, Owner,
    Plan, ReleaseHandle, Request, Settings, View, block, drive,
};
use tortie_net::{Family, IpNet, host_net};
use tortie_store::{Reader, Store, Write, WriteError};

pub use apart::Given;
use later::Later;
use together::Together;

use super::asked::Asked;
use super::device::families_of;
use super::workload::Workload;
use super::{Phase, Phases, Service, store_fault};

/// A request of one workload, or of the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    handle: String,
    attrs: BTreeMap<String, String>,
    namespace_labels: LabelMap,
    wanted: Vec<IpAddr>,
    families: Vec<(Family, Vec<String>)>,
    purpose: IpPoolAllowedUse,
}

impl Ask {
    /// Reads what the configuration and the runtime ask for.
    pub fn of(
        conf: &Conf,
        workload: &Workload,
        args: &BTreeMap<String, String>,
        asked: Option<&Asked>,
    ) -> Result<Ask, CniError> {
        let on = |setting: Option<TextBool>, default| setting.map_or(default, |TextBool(on)| on);
        let mut families = Vec::new();
        if on(conf.ipam.assign_ipv4, true) {
            families.push((Family::V4, conf.ipam.ipv4_pools.clone()));
        }
        if on(conf.ipam.assign_ipv6, false) {
            families.push((Family::V6, conf.ipam.ipv6_pools.clone()));
        }
        let families = asked.map_or(families.clone(), |asked| asked.families(families));
        let wanted = match args.get("IP").map(|text| (text, text.parse())) {
            None => asked.map(|asked| asked.fixed.clone()).unwrap_or_default(),
            Some((_, Ok(addr))) => vec![addr],
            Some((text, Err(_))) => {
                return Err(CniError::new(code::INVALID_ENVIRONMENT, format!("CNI_ARGS: IP={text} is no address")));
            }
        };
        if families.is_empty() && wanted.is_empty() {
            return Err(CniError::new(
                code::INVALID_CONFIG,
                "ipam.assign_ipv4 and ipam.assign_ipv6 are both \"false\": the pod would have no address",
            ));
        }
        let mut attrs = BTreeMap::new();
        if !workload.pod.is_empty() {
            attrs.insert("pod".to_owned(), workload.pod.clone());
            attrs.insert("namespace".to_owned(), workload.namespace.clone());
        }
        let mut namespace_labels = asked.map(|asked| asked.namespace_labels().clone()).unwrap_or_default();
        namespace_labels.insert("projectcalico.org/name", &workload.namespace);
        let handle = workload.handle.clone();
        Ok(Ask { handle, attrs, namespace_labels, wanted, families, purpose: IpPoolAllowedUse::Workload })
    }

    /// The families of the addresses that it is given.
    pub fn families(&self) -> Vec<Family> {
        if self.wanted.is_empty() {
            self.families.iter().map(|(family, _)| *family).collect()
        } else {
            families_of(&self.wanted).collect()
        }
    }

    /// One address for a tunnel device, of upstream's type of address, out of pools with these ranges.
    pub fn tunnel(handle: String, kind: &str, family: Family, pools: &[IpNet]) -> Ask {
        Ask {
            handle,
            attrs: BTreeMap::from([("type".to_owned(), kind.to_owned())]),
            namespace_labels: LabelMap::new(),
            wanted: Vec::new(),
            families: vec![(family, pools.iter().map(ToString::to_string).collect())],
            purpose: IpPoolAllowedUse::Tunnel,
        }
    }
}

/// Writes the workload's endpoint, once its addresses are known.
pub type EndpointWrite<'a> = &'a dyn Fn(&[IpAddr]) -> Write;

#[derive(Default)]
struct Known {
    /// Pools, reservations, settings, this node's affinities and blocks.
    facts: BTreeMap<Key, Fact>,
    settings: Option<Arc<Settings>>,
    node_labels: LabelMap,
    /// Whether a block may have been written without anybody knowing.
    doubt: bool,
}

/// Who gives addresses on this node.
pub struct Addresses {
    store: Arc<dyn Store>,
    node: String,
    known: Mutex<Known>,
    /// What changed while `known` was in use, to be learned before its next use. Locked after `known`, or alone.
    aside: Mutex<BTreeMap<Key, Update>>,
    /// Who waits for an address of a store that does one thing at a time.
    queue: Together<Ask, Result<Given, CniError>>,
    /// Who writes handles that nobody waits for.
    later: Later,
    phases: Arc<Phases>,
}

impl Addresses {
    /// For one node, against one store.
    pub fn new(store: Arc<dyn Store>, node: String) -> Addresses {
        let (known, aside, queue) = (Mutex::default(), Mutex::default(), Together::default());
        let later = Later::new(store.clone());
        Addresses { store, node, known, aside, queue, later, phases: Arc::default() }
    }

    /// Keeps in this directory what is still to be written, and writes what an earlier run left there.
    pub fn keep_in(&self, directory: &Path) {
        self.later.keep_in(directory);
    }

    /// The same, whose times are kept there.
    pub fn timed_by(self, phases: Arc<Phases>) -> Addresses {
        Addresses { phases, ..self }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is known is only ever hints, so a panic in the middle harms nothing.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.learn(&mut known, &mut self.aside.lock().unwrap_or_else(PoisonError::into_inner));
        known
    }

    /// Keeps in mind what changed in the store. Never waits: while a call writes to a slow store, what changed is put
    /// aside, since the agent that tells of it has the kernel to look after.
    pub fn observe(&self, updates: &[Update]) {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let interesting = |update: &&Update| {
            self.matters(&update.key, update.value.as_ref())
                || matches!(&update.key, Key::Resource { kind: Kind::Node, namespace: _, name } if *name == self.node)
        };
        // Merged by key, so it never holds more than there is in the store.
        aside.extend(updates.iter().filter(interesting).map(|update| (update.key.clone(), update.clone())));
        match self.known.try_lock() {
            Ok(mut known) => self.learn(&mut known, &mut aside),
            Err(TryLockError::Poisoned(poisoned)) => self.learn(&mut poisoned.into_inner(), &mut aside),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn learn(&self, known: &mut Known, aside: &mut BTreeMap<Key, Update>) {
        for Update { key, value, revision } in std::mem::take(aside).values() {
            if let (Key::Resource { kind: Kind::Node, namespace: _, name }, Some(Value::Resource(node))) = (key, value)
                && *name == self.node
            {
                known.node_labels.clone_from(&node.metadata().labels);
            }
            if !self.matters(key, value.as_ref()) {
                continue;
            }
            if is_setting(key) {
                known.settings = None;
            }
            match value {
                Some(value) if known.facts.get(key).is_none_or(|fact| fact.revision <= *revision) => {
                    let fact = Fact { key: key.clone(), value: value.clone(), revision: *revision };
                    known.facts.insert(key.clone(), fact);
                }
                Some(_) => {}
                None => drop(known.facts.remove(key)),
            }
        }
    }

    fn matters(&self, key: &Key, value: Option<&Value>) -> bool {
        match (key, value) {
            (Key::Affinity(affinity), _) => affinity.owner == self.node,
            (Key::Block(_), None) => true,
            (Key::Block(_), Some(Value::Block(block))) => {
                block.affinity.as_deref().and_then(Owner::parse) == Some(Owner::host(self.node.as_str()))
            }
            (key, _) => is_setting(key),
        }
    }

    /// Gives addresses and, in the same call of the store if it has transactions, writes the endpoint that has them.
    pub fn assign(&self, ask: &Ask, endpoint: Option<EndpointWrite<'_>>) -> Result<Vec<IpAddr>, CniError> {
        if self.store.one_by_one() {
            return self.assign_apart(ask, endpoint);
        }
        let mut known = self.known();
        let result = self.phases.time(Phase::Address, || self.assign_known(&mut known, ask, endpoint));
        if result.is_err() {
            // Whatever was given before the fault goes back; what can't go back now is found by DEL or GC.
            let _ = self.release_known(&mut known, &ask.handle, None);
        }
        result
    }

    fn assign_known(
        &self,
        known: &mut Known,
        ask: &Ask,
        endpoint: Option<EndpointWrite<'_>>,
    ) -> Result<Vec<IpAddr>, CniError> {
        let settings = self.settings(known)?;
        let (holder, client) = (self.holder(ask), self.client(known, ask));
        let mut given: Vec<IpAddr> = Vec::new();
        for (index, addr) in ask.wanted.iter().enumerate() {
            let plan = AssignAt::new(client.clone(), holder.clone(), *addr, settings.clone(), ipam::now());
            self.run(known, plan, &ask.handle, index == 0, None)?;
            given.push(*addr);
        }
        let families: Vec<_> = if ask.wanted.is_empty() { ask.families.clone() } else { Vec::new() };
        let mut written = false;
        for (index, (family, pools)) in families.iter().enumerate() {
            let before = given.clone();
            let also = endpoint
                .filter(|_| index + 1 == families.len())
                .map(|endpoint| move |new: &[IpAddr]| endpoint(&before.iter().chain(new).copied().collect::<Vec<_>>()));
            let also = also.as_ref().map(|f| f as EndpointWrite<'_>);
            let plan = self.plan(known, &settings, ask, (*family, pools))?;
            let assignment = self.run(known, plan, &ask.handle, index == 0, also)?;
            written |= also.is_some();
            given.extend(assignment.addresses.iter().map(|assigned| assigned.address));
        }
        if let (Some(endpoint), false) = (endpoint, written) {
            self.store.write_one(endpoint(&given)).map_err(store_fault)?;
        }
        Ok(given)
    }

    fn holder(&self, ask: &Ask) -> Holder {
        let mut attrs = ask.attrs.clone();
        attrs.insert("node".to_owned(), self.node.clone());
        Holder { handle: Some(ask.handle.clone()), attrs }
    }

    fn client(&self, known: &Known, ask: &Ask) -> Client {
        Client {
            node_labels: known.node_labels.clone(),
            namespace_labels: ask.namespace_labels.clone(),
            purpose: ask.purpose,
            ..Client::workload(self.node.as_str())
        }
    }

    /// The steps to one address of a family.
    fn plan(
        &self,
        known: &Known,
        settings: &Arc<Settings>,
        ask: &Ask,
        (family, pools): (Family, &[String]),
    ) -> Result<Assign, CniError> {
        let mut request = Request::one(self.client(known, ask), self.holder(ask), family);
        request.pools = pool_ranges(settings, pools)?;
        Ok(Assign::new(request, Arc::clone(settings), ipam::now()))
    }

    /// Gives back everything under a handle; first, if given, the endpoint is removed. Nothing there is no error.
    pub fn release(&self, handle: &str, removal: Option<Write>) -> Result<(), CniError> {
        if self.store.one_by_one() {
            return self.release_apart(handle, removal);
        }
        self.release_known(&mut self.known(), handle, removal)
    }

    fn release_known(&self, known: &mut Known, handle: &str, removal: Option<Write>) -> Result<(), CniError> {
        let cooldown = self.settings(known)?.config.ip_cooldown_seconds;
        let mut machine = Machine::new(ReleaseHandle::new(handle, cooldown, ipam::now()), hints(known, &self.node));
        let mut removal = removal;
        let result = drive(&mut machine, |question| {
            if let Question::Write(writes) = &question
                && let Some(first) = removal.take()
            {
                return self.write_with(known, writes, first, true);
            }
            self.answer(known, question)
        })?;
        if let Some(removal) = removal {
            match self.store.write_one(removal) {
                Ok(_) | Err(WriteError::Missing(_)) => {}
                Err(error) => return Err(store_fault(error)),
            }
        }
        match result {
            Ok(_) | Err(IpamError::UnknownHandle(_)) => Ok(()),
            Err(error) => Err(fault(error)),
        }
    }

    /// Whether any address is held under a handle.
    pub fn holds(&self, handle: &str) -> Result<bool, CniError> {
        let there = || Reader::get(&*self.store, &Key::Handle(handle.to_owned())).map_err(store_fault);
        Ok(self.later.has(handle) || there()?.is_some())
    }

    /// The handles under which addresses of pods are held in this node's blocks.
    pub fn own_handles(&self) -> Result<Vec<String>, CniError> {
        let listing = self.store.list(&Filter::Blocks).map_err(store_fault)?;
        let mut handles: Vec<String> = listing
            .entries
            .iter()
            .filter_map(|entry| entry.value.as_block())
            .flat_map(|block| &block.attributes)
            .filter(|attribute| attribute.secondary.get("node").is_some_and(|node| *node == self.node))
            .filter_map(|attribute| attribute.handle_id.clone())
            .collect();
        handles.sort_unstable();
        handles.dedup();
        Ok(handles)
    }

    fn settings(&self, known: &mut Known) -> Result<Arc<Settings>, CniError> {
        if let Some(settings) = &known.settings {
            return Ok(settings.clone());
        }
        let settings = ipam::settings(&*self.store).map_err(store_fault)?;
        known.settings = Some(settings.clone());
        Ok(settings)
    }

    fn run<P: Plan>(
        &self,
        known: &mut Known,
        plan: P,
        handle: &str,
        new_handle: bool,
        endpoint: Option<EndpointWrite<'_>>,
    ) -> Result<P::Output, CniError> {
        let mut view = hints(known, &self.node);
        if new_handle {
            view.hint_no_handle(handle);
        }
        let mut machine = Machine::new(plan, view);
        let result = drive(&mut machine, |question| {
            if let (Question::Write(writes), Some(endpoint)) = (&question, endpoint)
                && let Some(given) = given_to(handle, writes)
            {
                return self.write_with(known, writes, endpoint(&given), false);
            }
            self.answer(known, question)
        })?;
        result.map_err(fault)
    }

    fn answer(&self, known: &mut Known, question: Question) -> Result<Answer, CniError> {
        let Question::Write(writes) = question else {
            return ipam::answer(&*self.store, question).map_err(store_fault);
        };
        let results = self.store.write(&store_writes(&writes));
        Ok(Answer::Wrote(self.outcomes(known, &writes, results)))
    }

    /// Writes what IPAM asks for, with one more write before (`first`) or after it. A fault of that one ends the call.
    fn write_with(&self, known: &mut Known, writes: &[CasWrite], more: Write, first: bool) -> Result<Answer, CniError> {
        let mut all = store_writes(writes);
        let at = if first { 0 } else { all.len() };
        all.insert(at, more);
        let mut results = self.store.write(&all);
        match results.remove(at) {
            Ok(_) | Err(WriteError::NotTried) => {}
            Err(WriteError::Missing(_)) if first => return self.answer(known, Question::Write(writes.to_vec())),
            Err(error) => return Err(store_fault(error)),
        }
        let outcomes = self.outcomes(known, writes, results);
        if outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))) {
            return Ok(Answer::Wrote(outcomes));
        }
        if first {
            // The removal may have been undone with the rest, and the plan starts over without it.
            return Err(CniError::new(code::TRY_AGAIN, "the pod's address changed hands meanwhile"));
        }
        Ok(Answer::Wrote(outcomes))
    }

    fn outcomes(
        &self,
        known: &mut Known,
        writes: &[CasWrite],
        results: Vec<Result<tortie_facts::Revision, WriteError>>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for (write, result) in writes.iter().zip(results) {
            let outcome = ipam::outcome(result);
            match &outcome {
                Outcome::Done(revision) if self.matters(&write.key, write.value.as_ref()) => match &write.value {
                    Some(value) => {
                        let fact = Fact { key: write.key.clone(), value: value.clone(), revision: *revision };
                        known.facts.insert(write.key.clone(), fact);
                    }
                    None => drop(known.facts.remove(&write.key)),
                },
                Outcome::Conflict => drop(known.facts.remove(&write.key)),
                // It may have been written: what is known of it is no good any more.
                Outcome::Failed(_) => known.doubt |= known.facts.remove(&write.key).is_some(),
                Outcome::Done(_) | Outcome::NotTried => {}
            }
            outcomes.push(outcome);
        }
        outcomes
    }
}

impl Service {
    /// ADD of `calico-ipam` alone.
    pub(super) fn ipam_add(&self, call: &Call) -> Result<CniOutcome, CniError> {
        let conf = Conf::from_value(&call.conf)?;
        let workload = Workload::of(call, &conf, &self.node)?;
        let asked = self.asked(&conf, &workload)?;
        let mut ask = Ask::of(&conf, &workload, &call.args, asked.as_ref())?;
        let (key, value) = block::WITHOUT_ENDPOINT;
        ask.attrs.insert(key.to_owned(), value.to_owned());
        let addresses = self.addresses.assign(&ask, None)?;
        let ip = |addr: &IpAddr| Address { address: host_net(*addr), gateway: None, interface: None };
        Ok(CniOutcome { ips: addresses.iter().map(ip).collect(), ..CniOutcome::default() })
    }

    /// DEL of `calico-ipam` alone.
    pub(super) fn ipam_del(&self, call: &Call) -> Result<(), CniError> {
        let conf = Conf::from_value(&call.conf)?;
        let workload = Workload::of(call, &conf, &self.node)?;
        self.addresses.release(&workload.handle, None)
    }
}

fn is_setting(key: &Key) -> bool {
    match key {
        Key::Resource { kind, namespace: _, name: _ } => {
            matches!(kind, Kind::IpPool | Kind::IpReservation | Kind::IpamConfiguration)
        }
        Key::IpamConfig => true,
        Key::Block(_) | Key::Affinity(_) | Key::Handle(_) | Key::Status(_) | Key::Foreign(_) => false,
    }
}

fn hints(known: &Known, node: &str) -> View {
    let mut view = View::default();
    let mut affinities = false;
    for fact in known.facts.values() {
        affinities |= matches!(fact.key, Key::Affinity(_));
        view.hint(fact.clone());
    }
    if affinities {
        view.hint_all_affinities(&Owner::host(node));
    }
    view
}

/// The addresses that the writes give to a handle, if they give any.
fn given_to(handle: &str, writes: &[CasWrite]) -> Option<Vec<IpAddr>> {
    let mut given = Vec::new();
    for write in writes {
        let (Key::Block(cidr), Some(Value::Block(new))) = (&write.key, &write.value) else { continue };
        for (ordinal, slot) in new.allocations.iter().enumerate() {
            let held = slot.and_then(|index| new.attributes.get(index)).and_then(|a| a.handle_id.as_deref());
            if held == Some(handle) {
                given.push(block::address(*cidr, ordinal));
            }
        }
    }
    (!given.is_empty()).then_some(given)
}

fn store_writes(writes: &[CasWrite]) -> Vec<Write> {
    writes.iter().cloned().map(ipam::write).collect()
}

/// Pools by range or by name, as the configuration may have them.
fn pool_ranges(settings: &Settings, pools: &[String]) -> Result<Vec<IpNet>, CniError> {
    let find = |text: &String| {
        let named = settings.pools.iter().find(|pool| pool.name == *text).map(|pool| pool.cidr);
        named.or_else(|| text.parse().ok()).ok_or_else(|| {
            let names: Vec<&str> = settings.pools.iter().map(|pool| pool.name.as_str()).collect();
            let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, text));
            let hint = nearest.map(|name| format!(": did you mean {name:?}?")).unwrap_or_default();
            CniError::new(code::INVALID_CONFIG, format!("ipam names the pool {text:?}, which does not exist{hint}"))
        })
    };
    pools.iter().map(find).collect()
}

fn fault(error: IpamError) -> CniError {
    let code = match error {
        IpamError::Contention { .. } | IpamError::Store(_) => code::TRY_AGAIN,
        _ => code::NO_ADDRESS,
    };
    CniError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_found_by_name_or_range_and_a_misspelt_one_is_named() {
        let settings =
            Settings { pools: Vec::new(), reserved: Default::default(), config: tortie_ipam::default_config() };
        assert!(pool_ranges(&settings, &["10.0.0.0/16".into()]).is_ok());
        assert_eq!(pool_ranges(&settings, &["nope".into()]).expect_err("no such pool").code, code::INVALID_CONFIG);
    }

    #[test]
    fn what_is_observed_while_a_call_writes_is_learned_after_it_and_nobody_waits() {
        let addresses = Addresses::new(Arc::new(tortie_store::MemoryStore::new()), "n".into());
        let config = tortie_ipam::default_config();
        let update = |revision| Update {
            key: Key::IpamConfig,
            value: Some(Value::IpamConfig(config.clone())),
            revision: tortie_facts::Revision(revision),
        };
        let in_use = addresses.known();
        addresses.observe(&[update(1)]);
        addresses.observe(&[update(2)]);
        assert!(in_use.facts.is_empty());
        drop(in_use);
        let fact = addresses.known().facts.get(&Key::IpamConfig).map(|fact| fact.revision.0);
        assert_eq!(fact, Some(2));
        assert!(addresses.aside.lock().expect("no panic").is_empty());
    }
}
