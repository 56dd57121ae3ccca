//! Who is behind each service?
//!
//! Addresses and ports come from slices; ready or not, as upstream. What a used set holds is counted anew when one of
//! its service's slices changed, and compared with what was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{Member, SetChange, SetId, SetKind};
use tortie_net::Protocol;

use super::OfService;
use crate::bgp::Behind;

/// Namespace and name of a service as one text.
pub(crate) fn service_name(namespace: &str, name: &str) -> Arc<str> {
    Arc::from(format!("{namespace}/{name}"))
}

/// Some of the addresses behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// As [`service_name`] joins it.
    pub(crate) service: Arc<str>,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) ports: Box<[(Protocol, u16)]>,
    /// Which of its endpoints are ready.
    pub(crate) ready: Behind,
}

impl Slice {
    fn members(&self, ports: bool) -> impl Iterator<Item = Member> + '_ {
        let Slice { service: _, addresses, ports: own, ready: _ } = self;
        let plain = addresses.iter().filter(move |_| !ports).map(|addr| Member::Net(tortie_net::host_net(*addr)));
        let with = |addr: IpAddr| own.iter().map(move |(protocol, port)| (addr, *protocol, *port));
        let all = addresses.iter().filter(move |_| ports).flat_map(move |addr| with(*addr));
        plain.chain(all.map(|(addr, protocol, port)| Member::Port { addr, protocol, port }))
    }
}

type SliceKey = (Arc<str>, Box<str>);

#[derive(Debug)]
struct Set {
    spec: OfService,
    users: usize,
    /// What the last flush told; `None`: the set is not out yet.
    out: Option<BTreeSet<Member>>,
}

/// All slices, and the sets that active rules use.
#[derive(Debug, Default)]
pub(crate) struct Services {
    slices: BTreeMap<SliceKey, Slice>,
    by_service: BTreeMap<Arc<str>, BTreeSet<SliceKey>>,
    sets: BTreeMap<SetId, Set>,
    /// The sets of each service that has any.
    used: BTreeMap<Arc<str>, BTreeSet<SetId>>,
    dirty: BTreeSet<SetId>,
}

impl Services {
    /// A slice came, changed, moved to another service, or went.
    /// Returns whether other endpoints are ready now.
    pub(crate) fn set_slice(&mut self, namespace: &Arc<str>, name: &str, slice: Option<Slice>) -> bool {
        let key = (namespace.clone(), Box::from(name));
        let old = self.slices.get(&key);
        if old == slice.as_ref() {
            return false;
        }
        let readiness = |slice: &Slice| (slice.service.clone(), slice.ready);
        let changed = old.map(readiness) != slice.as_ref().map(readiness);
        if let Some(old) = self.slices.remove(&key) {
            self.mark(&old.service);
            if let Some(keys) = self.by_service.get_mut(&old.service) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_service.remove(&old.service);
                }
            }
        }
        if let Some(new) = slice {
            self.mark(&new.service);
            self.by_service.entry(new.service.clone()).or_default().insert(key.clone());
            self.slices.insert(key, new);
        }
        changed
    }

    /// What all slices of a service say of its endpoints.
    pub(crate) fn behind(&self, service: &str) -> Behind {
        let keys = self.by_service.get(service).into_iter().flatten();
        let each = keys.filter_map(|key| self.slices.get(key)).map(|slice| slice.ready);
        each.fold(Behind::default(), Behind::or)
    }

    fn mark(&mut self, service: &str) {
        self.dirty.extend(self.used.get(service).into_iter().flatten().cloned());
    }

    /// One more user of a set; the first one makes it.
    pub(crate) fn acquire(&mut self, spec: &OfService) {
        let set = self.sets.entry(spec.id.clone()).or_insert_with(|| Set { spec: spec.clone(), users: 0, out: None });
        set.users += 1;
        if set.users == 1 {
            self.used.entry(spec.service.clone()).or_default().insert(spec.id.clone());
            self.dirty.insert(spec.id.clone());
        }
    }

    /// One user less; a set without users goes with the next flush.
    pub(crate) fn release(&mut self, id: &SetId) {
        let Some(set) = self.sets.get_mut(id) else { return };
        set.users -= 1;
        if set.users == 0 {
            self.dirty.insert(id.clone());
        }
    }

    /// What a set holds, for people.
    pub(crate) fn describe(&self, id: &SetId) -> Option<String> {
        Some(self.sets.get(id)?.spec.describe())
    }

    /// What changed since the last flush.
    pub(crate) fn flush(&mut self) -> BTreeMap<SetId, SetChange> {
        let mut changes = BTreeMap::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            if set.users == 0 {
                let Set { spec, users: _, out } = self.sets.remove(&id).expect("just seen");
                if let Some(ids) = self.used.get_mut(&spec.service) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.used.remove(&spec.service);
                    }
                }
                if out.is_some() {
                    changes.insert(id, SetChange::Removed);
                }
                continue;
            }
            let OfService { id: _, service, ports } = &set.spec;
            let keys = self.by_service.get(service).into_iter().flatten();
            let slices = keys.filter_map(|key| self.slices.get(key));
            let members: BTreeSet<Member> = slices.flat_map(|slice| slice.members(*ports)).collect();
            let change = match &set.out {
                None => {
                    let kind = if *ports { SetKind::Ports } else { SetKind::Addresses };
                    Some(SetChange::Whole { kind, members: members.clone().into() })
                }
                Some(old) => (*old != members).then(|| SetChange::Delta {
                    added: members.difference(old).copied().collect(),
                    removed: old.difference(&members).copied().collect(),
                }),
            };
            set.out = Some(members);
            changes.extend(change.map(|change| (id, change)));
        }
        changes
    }
}
