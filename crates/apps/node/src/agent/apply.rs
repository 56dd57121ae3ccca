//! One turn's work: calculated changes into rules, routes and BGP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tortie_dataplane::Cause;
use tortie_desired::{Batch, Endpoint, Tables};
use tortie_flow::Judge;
use tortie_net::{Family, IpNet, PublicKey};
use tortie_routing::Waiting;
use tracing::{debug, error, info, warn};

use super::Agent;
use super::run::REFRESH;
use crate::bgp::Wanted;
use crate::revoke::Question;
use crate::tunnel_addresses::Wireguard;

/// How long a workload that gets an address waits until the flows of the one that had it before are deleted.
const FORGET_PATIENCE: Duration = Duration::from_secs(2);

impl Agent {
    pub(super) fn apply(&mut self, now: Instant) {
        if self.calculator.needs_interfaces()
            && let Some(interfaces) = self.interfaces.take(&self.tables.settings.interface_prefixes)
        {
            self.calculator.set_interfaces(interfaces);
        }
        self.calculator.set_loose_sources(self.interfaces.loose());
        let mut batch = if self.locked { Batch::default() } else { self.calculator.flush() };
        if self.bgp.is_none() {
            // Nobody here speaks BGP, whatever the Node resource says.
            batch.bgp_speaker = None;
            batch.bgp_policy = None;
            batch.bgp_peers.clear();
            batch.announcements.clear();
        }
        let reused = self.reused(&batch);
        self.tables.apply(&batch);
        if !batch.endpoints.is_empty() {
            self.judge = None;
        }
        self.health.drops.apply(&batch);
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            self.rules_current = false;
            self.resync_devices();
        }
        self.interfaces.make(&self.tables, &batch);
        self.interfaces.tighten(&self.tables);
        self.forget_before(&reused);
        self.apply_rules(&batch, now);
        if self.rules_current {
            self.interfaces.loosen(&self.tables);
            if self.bgp.is_some() {
                self.interfaces.put_peering(&self.tables);
            }
        }
        if !self.first_pass_done && self.tables.bgp_speaker.is_none() {
            // Without a speaker nobody will say what an earlier run's routes are worth now.
            self.routing.sweep_learned();
        }
        if self.writes_devices() {
            if self.first_pass_done {
                self.routing.change_desired(&batch);
                self.tunnels.change_desired(&batch, &self.tables);
                self.shaping.change_desired(&batch, &self.tables);
                if !batch.wireguard.is_empty() {
                    self.wireguard.set_desired(&self.tables);
                }
            } else {
                self.routing.set_desired(&self.tables);
                self.tunnels.set_desired(&self.tables);
                self.wireguard.set_desired(&self.tables);
                self.shaping.set_desired(&self.tables);
            }
            self.apply_tunnels(now);
            self.apply_wireguard(now);
            self.apply_shaping(now);
            self.apply_routes(now);
        }
        self.forget();
        self.tell_bgp(&batch);
        if let Some(test) = &mut self.self_test {
            let changed = !batch.vteps.is_empty() || !batch.tunnels.is_empty() || batch.ipip.is_some();
            let changed = changed || !batch.wireguard.is_empty();
            if changed || !batch.bgp_peers.is_empty() || batch.bgp_speaker.is_some() || !self.first_pass_done {
                test.watch(&self.tables);
            }
        }
        self.count(&batch, now);
        if std::mem::take(&mut self.facts_changed) {
            self.told.problems(self.calculator.problems(), now);
            let count = u64::try_from(self.told.standing().len()).unwrap_or(u64::MAX);
            self.health.numbers.problems.store(count, Ordering::Relaxed);
        }
        if self.rules_current {
            let routing = &self.routing;
            self.waits.answer(&self.tables, |net| routing.programmed(net));
        }
        if self.rules_current && !self.first_pass_done {
            self.first_pass_done = true;
            self.leftovers.remove(self.rules.name());
            self.health.set_in_sync();
            let interfaces = self.tables.endpoints.values().map(|endpoint| endpoint.interface.clone()).collect();
            self.service.sweep(&interfaces, &self.tables.settings.interface_prefixes);
            let (endpoints, policies) = (self.tables.endpoints.len(), self.tables.policies.len());
            info!(endpoints, policies, "in sync: the kernel holds the first picture of the facts");
        }
    }

    /// Notes the addresses that workloads give up. Those that workloads get now.
    fn reused(&mut self, batch: &Batch) -> BTreeSet<IpAddr> {
        if self.forgetter.is_none() || batch.endpoints.is_empty() {
            return BTreeSet::new();
        }
        let (gone, come) = moved(&self.tables, batch);
        self.given_up.extend(gone);
        come
    }

    /// Waits until no flow of an earlier workload is left of addresses that workloads get now.
    fn forget_before(&mut self, come: &BTreeSet<IpAddr>) {
        let Some(forgetter) = self.forgetter.as_ref().filter(|_| !come.is_empty()) else { return };
        let given_up = &mut self.given_up;
        forgetter.forget(come.iter().filter(|addr| given_up.remove(addr)).copied());
        if !forgetter.wait(come, FORGET_PATIENCE) {
            warn!(addresses = ?come, "flows of the workloads that had these addresses before may go on");
        }
    }

    /// Ends the flows of addresses that workloads gave up, once no packet makes them anew.
    fn forget(&mut self) {
        if let Some(forgetter) = self.forgetter.as_ref().filter(|_| self.rules_current && !self.given_up.is_empty()) {
            forgetter.forget(std::mem::take(&mut self.given_up));
        }
    }

    /// Everything but rules is read back from the kernel with the next apply.
    pub(super) fn resync_devices(&mut self) {
        self.routing.resync();
        self.tunnels.resync();
        self.wireguard.resync();
        self.shaping.resync();
        self.interfaces.resync();
    }

    fn apply_rules(&mut self, batch: &Batch, now: Instant) {
        let due = self.rules_retry.is_none_or(|at| at <= now);
        let result = if self.rules_current {
            if batch.is_empty() {
                return;
            }
            self.rules.commit(&self.tables, batch).map(|report| (decides(batch), report.unsupported))
        } else if due {
            let before = Before { held: self.first_pass_done, refused: self.rules_fault.is_some() };
            self.rules.resync(&self.tables).map(|report| {
                if self.first_pass_done && report.wrote {
                    warn!(repaired = ?report.repaired, replaced = report.replaced, "rules were not as they should be and are repaired");
                }
                (before.differs(report.wrote, batch), report.unsupported)
            })
        } else {
            return;
        };
        match result {
            Ok((changed, unsupported)) => {
                self.told.unsupported(unsupported);
                if let Some(revoker) = self.revoker.as_ref().filter(|_| changed) {
                    revoker.changed();
                }
                if self.rules_fault.take().is_some() {
                    info!("the kernel holds all rules again");
                }
                (self.rules_current, self.rules_retry, self.rules_failures) = (true, None, 0);
            }
            Err(error) => self.rules_refused(&error, now),
        }
        self.health.set_refused(self.rules_fault.is_some());
    }

    /// Nothing changed in the kernel: the last good rules stay, new endpoints stay closed.
    fn rules_refused(&mut self, cause: &Cause, now: Instant) {
        let text = cause.to_string();
        if self.rules_fault.as_ref() != Some(&text) {
            error!(
                cause = text,
                "the kernel does not take the rules; the last good ones stay, new endpoints are closed"
            );
        }
        self.rules_fault = Some(text);
        self.health.numbers.failures.fetch_add(1, Ordering::Relaxed);
        self.rules_current = false;
        let delay = Duration::from_millis(100 << self.rules_failures.min(7));
        self.rules_failures += 1;
        self.rules_retry = Some(now + delay);
    }

    /// Says what becomes of flows, if the kernel holds the rules that are wanted.
    pub(super) fn judge(&mut self, question: Question) {
        let Question { flows, around, answer } = question;
        let standings = self.rules_current.then(|| {
            let judge = self.judge.get_or_insert_with(|| Judge::new(&self.tables));
            flows.iter().map(|flow| judge.standing(&self.tables, &around, flow)).collect()
        });
        // Who asked may have given up.
        let _ = answer.send(standings);
    }

    fn apply_tunnels(&mut self, now: Instant) {
        let report = self.tunnels.apply(now);
        if report.is_clean() && !report.wrote() {
            self.last_tunnels.clear();
            return;
        }
        let text = report.to_string();
        if report.is_clean() {
            debug!("{text}");
        } else if text != self.last_tunnels {
            warn!("{text}");
        }
        self.last_tunnels = if report.is_clean() { String::new() } else { text };
    }

    fn apply_wireguard(&mut self, now: Instant) {
        let report = self.wireguard.apply(now);
        let text: Vec<String> = report.faults.iter().map(|(family, why)| format!("{family}: {why}")).collect();
        let text = text.join("; ");
        if text != self.last_wireguard && !text.is_empty() {
            warn!("WireGuard is not as wanted: {text}");
        }
        self.last_wireguard = text;
        let Some(bell) = &mut self.tunnel_addresses else { return };
        let text = |key: &Option<PublicKey>| key.map(|key| key.to_string()).unwrap_or_default();
        let keys = Family::ALL.map(|family| report.keys.get(&family).map(text));
        let enabled = Family::ALL.map(|family| self.tables.wireguard.contains_key(&family));
        bell.wireguard(Wireguard { enabled, keys });
    }

    fn apply_shaping(&mut self, now: Instant) {
        let report = self.shaping.apply(now);
        // A device that is not there yet gets its limits when it comes.
        let waits = |cause: &Cause| matches!(cause, Cause::Missing(_));
        let failing = report.blind.is_some() || report.failures.values().any(|cause| !waits(cause));
        let text = if failing { report.to_string() } else { String::new() };
        if failing && text != self.last_shaping {
            warn!("limits of bandwidth: {text}");
        } else if report.wrote() {
            debug!("limits of bandwidth: {report}");
        }
        self.last_shaping = text;
    }

    fn apply_routes(&mut self, now: Instant) {
        let report = self.routing.apply(now);
        let failing = !report.routes.failures.is_empty() || report.routes.blind.is_some();
        if report.routes.written + report.routes.removed > 0 || failing {
            let text = report.to_string();
            if failing && text != self.last_routing {
                warn!("{text}");
            } else {
                debug!("{text}");
            }
            self.last_routing = text;
        }
        let unreachable = unreachable(&report.waiting);
        if unreachable != self.unreachable {
            match unreachable.is_empty() {
                true => info!("the gateways of all learned routes can be reached again"),
                false => warn!("learned routes that are not in the kernel: {unreachable}"),
            }
            self.unreachable = unreachable;
        }
    }

    fn tell_bgp(&mut self, batch: &Batch) {
        let changed = batch.bgp_speaker.is_some()
            || batch.bgp_policy.is_some()
            || !batch.bgp_peers.is_empty()
            || !batch.announcements.is_empty();
        let Some(bgp) = self.bgp.as_ref().filter(|_| changed || !self.first_pass_done) else { return };
        bgp.want(Wanted {
            speaker: self.tables.bgp_speaker.clone(),
            peers: self.tables.bgp_peers.clone(),
            policy: self.tables.bgp_policy.clone(),
            announcements: self.tables.announcements.clone(),
        });
    }

    fn count(&self, batch: &Batch, started: Instant) {
        if batch.is_empty() {
            return;
        }
        let numbers = &self.health.numbers;
        let set = |number: &std::sync::atomic::AtomicU64, value: usize| {
            number.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        set(&numbers.local_endpoints, self.tables.endpoints.len());
        set(&numbers.local_policies, self.tables.policies.len());
        set(&numbers.sets, self.tables.sets.len());
        numbers.applies.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        numbers.apply_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// Which gateways nothing leads to, each with how many routes wait for it and the first of them.
fn unreachable(waiting: &BTreeMap<IpNet, Waiting>) -> String {
    let mut gateways: BTreeMap<IpAddr, (usize, IpNet)> = BTreeMap::new();
    for (net, waits) in waiting {
        let off_link: &[IpAddr] = match waits {
            Waiting::OffLink(off_link) => off_link,
            Waiting::Interface(_) => &[],
        };
        off_link.iter().for_each(|gateway| gateways.entry(*gateway).or_insert((0, *net)).0 += 1);
    }
    let words = gateways.iter().map(|(gateway, (count, first))| match count {
        1 => format!("{first}: no way to its gateway {gateway}"),
        _ => format!("{first} and {} more: no way to their gateway {gateway}", count - 1),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// The addresses that workloads of these tables lose by a batch, and those that workloads get.
fn moved(tables: &Tables, batch: &Batch) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let (mut gone, mut come) = (BTreeSet::new(), BTreeSet::new());
    for (id, new) in &batch.endpoints {
        let old = tables.endpoints.get(id);
        // Another interface, or one made anew, is another workload.
        let same = |(a, b): &(&Arc<Endpoint>, &Arc<Endpoint>)| a.interface == b.interface && a.mac == b.mac;
        let stays = old.zip(new.as_ref()).filter(same);
        let kept =
            |addr: &&IpAddr| stays.is_some_and(|(a, b)| a.addresses.contains(addr) && b.addresses.contains(addr));
        gone.extend(old.iter().flat_map(|old| &old.addresses).filter(|addr| !kept(addr)));
        come.extend(new.iter().flat_map(|new| &new.addresses).filter(|addr| !kept(addr)));
    }
    if !gone.is_empty() {
        // Of several workloads with one address those that stay keep its flows.
        let others = tables.endpoints.iter().filter(|(id, _)| !batch.endpoints.contains_key(*id));
        for addr in others.flat_map(|(_, endpoint)| &endpoint.addresses) {
            gone.remove(addr);
        }
    }
    (gone, come)
}

/// What was known of the kernel's rules before all of them were looked at.
#[derive(Clone, Copy)]
struct Before {
    /// It held some picture of this process.
    held: bool,
    /// The last change was refused, or said to be.
    refused: bool,
}

impl Before {
    /// Whether policy may say another thing of a flow than before. A change whose answer was lost took effect all the
    /// same: then there is nothing left to write.
    fn differs(self, wrote: bool, batch: &Batch) -> bool {
        let Before { held, refused } = self;
        wrote || !held || refused || !batch.is_empty()
    }
}

/// Whether a batch may change what policy says of a flow.
fn decides(batch: &Batch) -> bool {
    let Batch {
        settings,
        sets,
        policies,
        staged: _,
        previews: _,
        host_previews: _,
        profiles,
        endpoints,
        host_endpoints,
        pools: _,
        tunnels,
        ipip,
        wireguard,
        vteps,
        routes: _,
        bgp_speaker: _,
        bgp_policy: _,
        bgp_peers: _,
        announcements: _,
    } = batch;
    let policy = !(sets.is_empty() && policies.is_empty() && profiles.is_empty());
    let places = !(endpoints.is_empty() && host_endpoints.is_empty());
    let tunnels = !(tunnels.is_empty() && wireguard.is_empty() && vteps.is_empty()) || ipip.is_some();
    settings.is_some() || policy || places || tunnels
}

#[cfg(test)]
mod tests {
    use tortie_desired::EndpointId;
    use tortie_net::Mac;

    use super::*;

    fn endpoint(interface: &str, mac: u8, last: &[u8]) -> Endpoint {
        Endpoint {
            interface: Arc::from(interface),
            mac: Some(Mac([2, 0, 0, 0, 0, mac])),
            addresses: addresses(last).into_iter().collect(),
            ..Endpoint::default()
        }
    }

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    #[test]
    fn flows_are_judged_again_when_a_change_that_was_refused_turns_out_to_be_in_force() {
        let differs = |held, refused| Before { held, refused }.differs(false, &Batch::default());
        assert!(differs(true, true) && differs(false, false) && !differs(true, false));
        assert!(Before { held: true, refused: false }.differs(true, &Batch::default()));
    }

    #[test]
    fn an_address_moves_when_another_workload_has_it_and_not_when_its_own_changes() {
        let mut tables = Tables::default();
        let mut moves = |changes: &[(&str, Option<Endpoint>)]| {
            let id = |name: &str| EndpointId { namespace: Arc::from("ns"), name: Arc::from(name) };
            let endpoints = changes.iter().map(|(name, new)| (id(name), new.clone().map(Arc::new))).collect();
            let batch = Batch { endpoints, ..Batch::default() };
            let told = moved(&tables, &batch);
            tables.apply(&batch);
            told
        };
        let [a, b] = [endpoint("cali1", 1, &[1, 2]), endpoint("cali2", 2, &[3])];
        assert_eq!(moves(&[("a", Some(a)), ("b", Some(b))]), (addresses(&[]), addresses(&[1, 2, 3])));
        let changed = Endpoint { profiles: vec![Arc::from("p")], ..endpoint("cali1", 1, &[1, 4]) };
        assert_eq!(moves(&[("a", Some(changed))]), (addresses(&[2]), addresses(&[4])), "what stays is no news");
        let c = endpoint("cali3", 3, &[1]);
        assert_eq!(moves(&[("a", None), ("c", Some(c))]), (addresses(&[1, 4]), addresses(&[1])), "at once");
        let anew = endpoint("cali3", 9, &[1]);
        assert_eq!(moves(&[("c", Some(anew))]), (addresses(&[1]), addresses(&[1])), "made anew");
        assert_eq!(moves(&[("d", Some(endpoint("cali4", 4, &[3])))]), (addresses(&[]), addresses(&[3])));
        assert_eq!(moves(&[("d", None)]), (addresses(&[]), addresses(&[])), "another one still has it");
    }

    #[test]
    fn gateways_without_a_way_are_told_once_each() {
        let net = |text: &str| text.parse::<IpNet>().expect("a literal");
        let off_link = |text: &str| Waiting::OffLink(vec![text.parse().expect("a literal")]);
        let waiting = [
            (net("10.1.0.0/26"), off_link("192.0.2.1")),
            (net("10.2.0.0/26"), off_link("192.0.2.1")),
            (net("10.3.0.0/26"), off_link("192.0.2.2")),
            (net("10.4.0.1/32"), Waiting::Interface("cali1".into())),
        ];
        let words =
            "10.1.0.0/26 and 1 more: no way to their gateway 192.0.2.1; 10.3.0.0/26: no way to its gateway 192.0.2.2";
        assert_eq!(unreachable(&waiting.into()), words);
        assert_eq!(unreachable(&BTreeMap::new()), "");
    }
}
