//! ADD: record, make, wait until the kernel holds it. What only others need to read is recorded while the device is made.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tortie_api::{Action, EntityRule, IpNetText, Kind, Metadata, Profile, ProfileSpec, Resource, Rule};
use tortie_api::{WorkloadEndpoint, WorkloadEndpointSpec};
use tortie_cni::conf::Conf;
use tortie_cni::spec::{Address, CniError, Interface, Outcome, code};
use tortie_cni::wire::Request;
use tortie_desired::EndpointId;
use tortie_facts::{Key, Value};
use tortie_ipam::CasWrite;
use tortie_net::{Mac, host_net};
use tortie_netlink::{Handle, Netns};
use tortie_store::{Entry, Expect, Reader, Write, WriteError, resource};
use tracing::warn;

use super::addresses::{Ask, Given};
use super::asked::Asked;
use super::device::{self, DeviceError, Wanted};
use super::mend::{Kept, own_cookie};
use super::workload::Workload;
use super::{POLICY_PATIENCE, Phase, Service, store_fault};
use crate::agent::Until;

/// What is recorded of a new pod.
enum Recorded {
    /// Its addresses and its endpoint.
    Done(Vec<IpAddr>),
    /// Its addresses; the rest, with its endpoint, is to be written. The handle is written after the answer, if it is
    /// here.
    Begun(Given, Write, Option<CasWrite>),
}

impl Recorded {
    fn addresses(&self) -> &[IpAddr] {
        match self {
            Recorded::Done(addresses) => addresses,
            Recorded::Begun(given, _, _) => &given.addresses,
        }
    }
}

impl Service {
    pub(super) fn add(&self, request: &Request, netns: Option<Netns>) -> Result<Outcome, CniError> {
        let conf = Conf::from_value(&request.conf)?;
        let workload = Workload::of(request, &conf, &self.node)?;
        let netns = netns.ok_or_else(|| {
            CniError::new(code::UNKNOWN_CONTAINER, format!("CNI_NETNS {} is no namespace", request.netns))
        })?;
        if !self.agent.is_in_sync() {
            return Err(CniError::new(code::TRY_AGAIN, "the node agent is not in sync with its datastore yet"));
        }
        let (_turn, cookie) = self.phases.time(Phase::Look, || {
            let turn = self.turn(&workload.interface)?;
            Ok((turn, self.taken(request, &workload, &netns)?))
        })?;
        self.foreign(&workload)?;
        if conf.require_mtu_file && !self.mtu_file.exists() {
            let file = self.mtu_file.display();
            return Err(CniError::new(code::TRY_AGAIN, format!("require_mtu_file is set, but there is no {file} yet")));
        }
        self.ensure_profile(&conf, &workload)?;
        let asked = self.phases.time(Phase::Asked, || self.asked(&conf, &workload))?;
        let mac = asked.as_ref().and_then(|asked| asked.mac).unwrap_or_else(device::random_mac);
        let recorded = self.record(&conf, &workload, request, asked.as_ref(), mac)?;
        let addresses = recorded.addresses();
        let made = self.beside(&recorded, || self.device(&conf, &workload, request, (&netns, cookie), addresses, mac));
        let made = made.and_then(|()| self.programmed(&conf, &workload, addresses));
        if made.is_err() {
            // The runtime calls DEL too, but an address should not wait for that.
            let _ = self.forget(&workload, None);
        }
        made?;
        if let Recorded::Begun(_, _, Some(handle)) = &recorded {
            self.addresses.write_later(handle);
        }
        Ok(outcome(&workload, request, addresses, mac, self.mtu(&conf)))
    }

    pub(super) fn mtu(&self, conf: &Conf) -> u32 {
        if conf.mtu == 0 { self.mtu.load(std::sync::atomic::Ordering::Relaxed) } else { conf.mtu }
    }

    /// An interface of the wanted name means that ADD was done before (CNI spec, "ADD"), unless it is one that DEL
    /// left to the reaper a moment ago. Otherwise the namespace's cookie is returned.
    fn taken(&self, request: &Request, workload: &Workload, netns: &Netns) -> Result<u64, CniError> {
        let look = || (Handle::open().and_then(|mut handle| handle.link(workload.ifname.as_str())), own_cookie());
        let mut found = netns.run(look);
        if matches!(found, Ok((Ok(_), _))) {
            self.reaper.settle();
            found = netns.run(look);
        }
        match found {
            Ok((Ok(_), _)) => Err(taken(&workload.ifname)),
            Ok((Err(error), cookie)) if error.is_not_found() => Ok(cookie.unwrap_or_default()),
            Ok((Err(error), _)) => Err(CniError::new(code::INTERNAL, error.to_string())),
            Err(error) => Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                format!("CNI_NETNS {} is no network namespace: {error}", request.netns),
            )),
        }
    }

    /// The host's side of an interface is named by the pod, or by the first letters of the container, as upstream's is.
    /// Where two endpoints would share a name, the second is refused: it would take the first one's device.
    fn foreign(&self, workload: &Workload) -> Result<(), CniError> {
        let Some((namespace, name)) = self.keeper.owner(&workload.interface) else { return Ok(()) };
        if (&*namespace, &*name) == (&*workload.namespace, &*workload.endpoint) {
            return Ok(());
        }
        let key = Key::resource(Kind::WorkloadEndpoint, &namespace, &name);
        if Reader::get(&*self.store, &key).map_err(store_fault)?.is_none() {
            return Ok(());
        }
        Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!(
                "the interface {} belongs to the endpoint {namespace}/{name}: a pod can have one interface of this \
                 plugin, and containers without a pod need ids that differ in their first 11 letters",
                workload.interface
            ),
        ))
    }

    /// Without a policy handler the network's own profile lets its members talk, as upstream's plugin has it.
    fn ensure_profile(&self, conf: &Conf, workload: &Workload) -> Result<(), CniError> {
        if !conf.policy.kind.is_empty() {
            return Ok(());
        }
        let key = Key::resource(Kind::Profile, "", &conf.name);
        if Reader::get(&*self.store, &key).map_err(store_fault)?.is_some() {
            return Ok(());
        }
        let allow = Rule { action: Action::Allow, ..Rule::default() };
        let members = EntityRule { selector: format!("has({})", conf.name), ..EntityRule::default() };
        let ingress =
            if workload.orchestrator == "k8s" { allow.clone() } else { Rule { source: members, ..allow.clone() } };
        let profile = Profile {
            metadata: Metadata::named(conf.name.as_str()),
            spec: ProfileSpec {
                ingress: vec![ingress],
                egress: vec![allow],
                labels_to_apply: BTreeMap::from([(conf.name.clone(), String::new())]),
            },
        };
        resource::ensure(&*self.store, profile.into()).map(drop).map_err(|error| match error {
            // A store whose profiles come from elsewhere takes none, whenever it is asked.
            WriteError::Invalid(why) => CniError::new(
                code::INVALID_CONFIG,
                format!(
                    "no \"policy\": {{\"type\": \"k8s\"}} in the configuration, and no profile for its network: {why}"
                ),
            ),
            other => store_fault(other),
        })
    }

    /// Gets addresses and writes them and the endpoint: in one call of the store, or, where each write is a request of
    /// its own, the block at once and the rest while the device is made.
    fn record(
        &self,
        conf: &Conf,
        workload: &Workload,
        request: &Request,
        asked: Option<&Asked>,
        mac: Mac,
    ) -> Result<Recorded, CniError> {
        if let Some(asked) = asked {
            // What the pod asks for beside addresses is read before any is given.
            asked.endpoint(&[])?;
        }
        let key = Key::resource(Kind::WorkloadEndpoint, &workload.namespace, &workload.endpoint);
        let old = self.phases.time(Phase::Before, || {
            let old = match asked {
                Some(asked) => self.endpoint_of(&key, asked)?,
                None => Reader::get(&*self.store, &key).map_err(store_fault)?,
            };
            // A pod of the same name that is not this container: its addresses go first.
            old.as_ref().map_or(Ok(()), |old| self.release_old(old, workload))?;
            Ok(old)
        })?;
        let endpoint = |addresses: &[IpAddr]| {
            let mut new = Resource::from(endpoint(conf, workload, asked, addresses, mac, &self.node));
            resource::stamp_new(&mut new);
            let expect = old.as_ref().map_or(Expect::Absent, |old| Expect::Revision(old.revision));
            Write { key: key.clone(), expect, value: Some(Value::resource(new)) }
        };
        if let Some(given) = &request.ipam {
            let addresses: Vec<IpAddr> = given.ips.iter().map(|ip| ip.address.addr()).collect();
            if addresses.is_empty() {
                return Err(CniError::new(code::NO_ADDRESS, "the IPAM plugin gave no address"));
            }
            self.store.write_one(endpoint(&addresses)).map_err(store_fault)?;
            return Ok(Recorded::Done(addresses));
        }
        if let Some(asked) = asked.filter(|asked| !asked.bare.is_empty()) {
            self.store.write_one(endpoint(&asked.bare)).map_err(store_fault)?;
            return Ok(Recorded::Done(asked.bare.clone()));
        }
        let ask = Ask::of(conf, workload, &request.args, asked)?;
        if self.store.one_by_one() {
            let mut given = self.addresses.begin(&ask)?;
            let endpoint = endpoint(&given.addresses);
            let handle = self.addresses.put_off(&mut given);
            return Ok(Recorded::Begun(given, endpoint, handle));
        }
        self.addresses.assign(&ask, Some(&endpoint)).map(Recorded::Done)
    }

    /// The endpoint of a pod that was just looked at.
    fn endpoint_of(&self, key: &Key, asked: &Asked) -> Result<Option<Entry>, CniError> {
        let is_its =
            |entry: &Entry| entry.value.as_resource().is_some_and(|resource| resource.metadata().uid == asked.uid());
        let told = self.store.get_recent(key).map_err(store_fault)?;
        if !self.store.one_by_one() || told.as_ref().is_none_or(is_its) {
            return Ok(told);
        }
        // What was told is of an earlier pod of that name.
        let found = Reader::get(&*self.store, key).map_err(store_fault)?;
        if found.as_ref().is_none_or(is_its) {
            return Ok(found);
        }
        Err(CniError::new(code::UNKNOWN_CONTAINER, format!("the pod of uid {} is not there any more", asked.uid())))
    }

    /// Does something while what is still to be recorded is written. Both must succeed, and both have ended.
    fn beside(&self, recorded: &Recorded, what: impl FnOnce() -> Result<(), CniError>) -> Result<(), CniError> {
        let Recorded::Begun(given, endpoint, _) = recorded else { return what() };
        std::thread::scope(|scope| {
            let finish = || self.addresses.finish(given, Some(endpoint.clone()));
            let thread = std::thread::Builder::new().name("cni-record".to_owned()).stack_size(256 * 1024);
            let Ok(finished) = thread.spawn_scoped(scope, finish) else {
                return finish().and_then(|()| what());
            };
            let done = what();
            let finished = finished.join().unwrap_or_else(|_| {
                Err(CniError::new(code::INTERNAL, "the pod's record could not be written: the node's log says why"))
            });
            finished.and(done)
        })
    }

    /// Makes the pod's device.
    fn device(
        &self,
        conf: &Conf,
        workload: &Workload,
        request: &Request,
        (netns, cookie): (&Netns, u64),
        addresses: &[IpAddr],
        mac: Mac,
    ) -> Result<(), CniError> {
        let routes = conf.routes();
        let wanted = Wanted {
            host_name: &workload.interface,
            pod_name: &workload.ifname,
            netns,
            mtu: self.mtu(conf),
            mac,
            addresses,
            routes: &routes,
            forwarding: conf.container_settings.allow_ip_forwarding,
        };
        let internal = |error: tortie_netlink::Error| CniError::new(code::INTERNAL, error.to_string());
        let mut host = Handle::open().map_err(internal)?;
        self.keep(&wanted, workload, request, cookie);
        self.phases.time(Phase::Device, || device::create(&mut host, &wanted)).map_err(|error| match error {
            DeviceError::TakenInPod(name) => taken(&name),
            DeviceError::Kernel(error) => internal(error),
        })
    }

    /// Waits until the kernel holds the endpoint.
    fn programmed(&self, conf: &Conf, workload: &Workload, addresses: &[IpAddr]) -> Result<(), CniError> {
        let patience = match conf.policy_setup_timeout_seconds {
            0 => POLICY_PATIENCE,
            seconds => Duration::from_secs(seconds),
        };
        let until =
            Until::Programmed { interface: Arc::from(workload.interface.as_str()), addresses: addresses.to_vec() };
        let waited = self.phases.time(Phase::Policy, || self.agent.wait(&endpoint_id(workload), until, patience));
        waited.map_err(|why| {
            CniError::new(code::TRY_AGAIN, format!("the kernel does not hold the pod's policy and routes: {why}"))
        })
    }
}

impl Service {
    fn keep(&self, wanted: &Wanted<'_>, workload: &Workload, request: &Request, cookie: u64) {
        let kept = Kept {
            interface: wanted.host_name.to_owned(),
            ifname: wanted.pod_name.to_owned(),
            netns: request.netns.clone(),
            netns_cookie: cookie,
            namespace: workload.namespace.clone(),
            endpoint: workload.endpoint.clone(),
            mac: wanted.mac.to_string(),
            mtu: wanted.mtu,
            addresses: wanted.addresses.to_vec(),
            routes: wanted.routes.to_vec(),
            forwarding: wanted.forwarding,
        };
        if let Err(error) = self.keeper.keep(&kept) {
            warn!(%error, interface = wanted.host_name, "if somebody deletes this pod's device, it can't be made again");
        }
    }
}

pub(super) fn endpoint_id(workload: &Workload) -> EndpointId {
    EndpointId { namespace: Arc::from(workload.namespace.as_str()), name: Arc::from(workload.endpoint.as_str()) }
}

fn taken(ifname: &str) -> CniError {
    CniError::new(
        code::INVALID_ENVIRONMENT,
        format!("CNI_IFNAME: the container has an interface {ifname} already; ADD was done before, or DEL was not"),
    )
}

fn endpoint(
    conf: &Conf,
    workload: &Workload,
    asked: Option<&Asked>,
    addresses: &[IpAddr],
    mac: Mac,
    node: &str,
) -> WorkloadEndpoint {
    // It was read without addresses before, and addresses add nothing that could be wrong.
    let WorkloadEndpoint { metadata: pod, spec: said } =
        asked.and_then(|asked| asked.endpoint(addresses).ok()).unwrap_or_default();
    let mut labels = pod.labels;
    labels.extend(conf.labels());
    labels.insert("projectcalico.org/namespace".to_owned(), workload.namespace.clone());
    labels.insert("projectcalico.org/orchestrator".to_owned(), workload.orchestrator.to_owned());
    let account = match said.service_account_name.as_str() {
        "" => workload.service_account.clone(),
        account => account.to_owned(),
    };
    if !account.is_empty() && account.len() < 63 {
        labels.insert("projectcalico.org/serviceaccount".to_owned(), account.clone());
    }
    let mut metadata = Metadata::in_namespace(workload.namespace.as_str(), workload.endpoint.as_str());
    metadata.labels = labels;
    metadata.generate_name = pod.generate_name;
    let spec = WorkloadEndpointSpec {
        orchestrator: workload.orchestrator.to_owned(),
        node: node.to_owned(),
        container_id: workload.container_id.clone(),
        pod: workload.pod.clone(),
        endpoint: workload.ifname.clone(),
        profiles: workload.profiles(conf, &account),
        service_account_name: account,
        ip_networks: addresses.iter().map(|addr| IpNetText::from(host_net(*addr))).collect(),
        interface_name: workload.interface.clone(),
        mac: mac.to_string(),
        // Ports, limits, allowed sources and floating addresses.
        ..said
    };
    WorkloadEndpoint { metadata, spec }
}

fn outcome(workload: &Workload, request: &Request, addresses: &[IpAddr], mac: Mac, mtu: u32) -> Outcome {
    let interface = |name: &str, mac: Mac, sandbox: &str| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        mtu: Some(mtu),
        sandbox: sandbox.to_owned(),
    };
    Outcome {
        interfaces: vec![
            interface(&workload.interface, Mac::WORKLOAD_HOST_SIDE, ""),
            interface(&workload.ifname, mac, &request.netns),
        ],
        ips: addresses
            .iter()
            .map(|addr| Address { address: host_net(*addr), gateway: None, interface: Some(1) })
            .collect(),
        routes: request.ipam.as_ref().map(|given| given.routes.clone()).unwrap_or_default(),
        dns: request.ipam.as_ref().map(|given| given.dns.clone()).unwrap_or_default(),
    }
}
