//! ADD: record, make, wait until the kernel holds it. Where each write is a request of its own, the device is made
//! while they are under way.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use tortie_api::{Action, EntityRule, IpNetText, Kind, LabelMap, Metadata, Profile, ProfileSpec, Resource, Rule};
use tortie_api::{WorkloadEndpoint, WorkloadEndpointSpec};
use tortie_cni::conf::Conf;
use tortie_cni::spec::{Address, CniError, Interface, Outcome, code};
use tortie_cni::waits;
use tortie_cni::wire::Request;
use tortie_desired::EndpointId;
use tortie_facts::{Key, Value};
use tortie_ipam::CasWrite;
use tortie_net::{Family, Mac, host_net};
use tortie_netlink::{Handle, Netns};
use tortie_store::{Entry, Expect, Reader, Write, WriteError, resource};
use tracing::warn;

use super::addresses::Ask;
use super::asked::Asked;
use super::device::{self, DeviceError, Wanted};
use super::mend::{Kept, own_cookie};
use super::workload::Workload;
use super::{Phase, Service, store_fault};
use crate::agent::Until;

/// Where a new pod's addresses come from.
enum Source {
    /// They are known.
    Known(Vec<IpAddr>),
    /// They are given by this node.
    Ask(Ask),
}

impl Source {
    fn families(&self) -> Vec<Family> {
        match self {
            Source::Known(addresses) => device::families_of(addresses).collect(),
            Source::Ask(ask) => ask.families(),
        }
    }
}

/// What is recorded of a new pod.
struct Recorded {
    addresses: Vec<IpAddr>,
    /// What is written after the answer.
    handle: Option<CasWrite>,
}

/// Why a pod has no device.
enum NotMade {
    /// It got no addresses.
    NoAddress,
    Failed(CniError),
}

impl From<DeviceError> for NotMade {
    fn from(error: DeviceError) -> NotMade {
        NotMade::Failed(match error {
            DeviceError::TakenInPod(name) => taken(&name),
            DeviceError::Kernel(error) => CniError::new(code::INTERNAL, error.to_string()),
        })
    }
}

fn made(result: Result<(), NotMade>) -> Result<(), (CniError, bool)> {
    result.map_err(|why| match why {
        NotMade::Failed(error) => (error, true),
        NotMade::NoAddress => (not_recorded("its addresses were not told"), true),
    })
}

fn not_recorded(why: &str) -> CniError {
    CniError::new(code::INTERNAL, format!("the pod's record could not be written: {why}"))
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
        let source = self.source(&conf, &workload, request, asked.as_ref())?;
        let old = self.old(&workload, asked.as_ref())?;
        let (families, (tell, told)) = (source.families(), mpsc::channel());
        let record = || self.record(&conf, &workload, asked.as_ref(), mac, (source, old), tell);
        let make = || self.device(&conf, &workload, request, (&netns, cookie), (&families, told), mac);
        let Recorded { addresses, handle } = self.both(record, make).map_err(|(error, given)| {
            if given {
                // The runtime calls DEL too, but an address should not wait for that.
                let _ = self.forget(&workload, None);
            }
            error
        })?;
        self.programmed(&conf, &workload, &addresses).inspect_err(|_| {
            let _ = self.forget(&workload, None);
        })?;
        if let Some(handle) = &handle {
            self.addresses.write_later(handle);
        }
        Ok(outcome(&workload, request, &addresses, mac, self.mtu(&conf)))
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
                labels_to_apply: LabelMap::from([(conf.name.as_str(), "")]),
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

    /// Where the pod's addresses come from. Whatever else it asks for is read before any is given.
    fn source(
        &self,
        conf: &Conf,
        workload: &Workload,
        request: &Request,
        asked: Option<&Asked>,
    ) -> Result<Source, CniError> {
        if let Some(asked) = asked {
            asked.endpoint(&[])?;
        }
        if let Some(given) = &request.ipam {
            let addresses: Vec<IpAddr> = given.ips.iter().map(|ip| ip.address.addr()).collect();
            if addresses.is_empty() {
                return Err(CniError::new(code::NO_ADDRESS, "the IPAM plugin gave no address"));
            }
            return Ok(Source::Known(addresses));
        }
        match asked.filter(|asked| !asked.bare.is_empty()) {
            Some(asked) => Ok(Source::Known(asked.bare.clone())),
            None => Ask::of(conf, workload, &request.args, asked).map(Source::Ask),
        }
    }

    /// The endpoint that is there. If it is of an earlier container, its addresses are given back.
    fn old(&self, workload: &Workload, asked: Option<&Asked>) -> Result<Option<Entry>, CniError> {
        let key = Key::resource(Kind::WorkloadEndpoint, &workload.namespace, &workload.endpoint);
        self.phases.time(Phase::Before, || {
            let old = match asked {
                Some(asked) => self.endpoint_of(&key, asked)?,
                None => Reader::get(&*self.store, &key).map_err(store_fault)?,
            };
            old.as_ref().map_or(Ok(()), |old| self.release_old(old, workload))?;
            Ok(old)
        })
    }

    /// Gets addresses, tells them as soon as nobody else can get them, and writes the endpoint that has them: in one
    /// call of the store, if it has transactions.
    fn record(
        &self,
        conf: &Conf,
        workload: &Workload,
        asked: Option<&Asked>,
        mac: Mac,
        (source, old): (Source, Option<Entry>),
        tell: Sender<Vec<IpAddr>>,
    ) -> Result<Recorded, CniError> {
        let key = Key::resource(Kind::WorkloadEndpoint, &workload.namespace, &workload.endpoint);
        let endpoint = |addresses: &[IpAddr]| {
            let mut new = Resource::from(endpoint(conf, workload, asked, addresses, mac, &self.node));
            resource::stamp_new(&mut new);
            let expect = old.as_ref().map_or(Expect::Absent, |old| Expect::Revision(old.revision));
            Write { key: key.clone(), expect, value: Some(Value::resource(new)) }
        };
        // Whoever listens may have failed by now.
        let tell = |addresses: &[IpAddr]| drop(tell.send(addresses.to_vec()));
        let ask = match source {
            Source::Known(addresses) => {
                self.store.write_one(endpoint(&addresses)).map_err(store_fault)?;
                tell(&addresses);
                return Ok(Recorded { addresses, handle: None });
            }
            Source::Ask(ask) => ask,
        };
        if !self.store.one_by_one() {
            let addresses = self.addresses.assign(&ask, Some(&endpoint))?;
            tell(&addresses);
            return Ok(Recorded { addresses, handle: None });
        }
        let mut given = self.addresses.begin(&ask, Some(&endpoint))?;
        tell(&given.addresses);
        let handle = self.addresses.put_off(&mut given);
        self.addresses.finish(&given)?;
        Ok(Recorded { addresses: given.addresses, handle })
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

    /// Records a pod and makes its device: both at once where each write is a request of its own. The error is the
    /// first that explains the others, with whether addresses may be given.
    fn both(
        &self,
        record: impl FnOnce() -> Result<Recorded, CniError> + Send,
        make: impl FnOnce() -> Result<(), NotMade>,
    ) -> Result<Recorded, (CniError, bool)> {
        if !self.store.one_by_one() {
            let recorded = record().map_err(|error| (error, false))?;
            return made(make()).map(|()| recorded);
        }
        let (recorded, made_too) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("cni-record".to_owned()).stack_size(256 * 1024);
            match thread.spawn_scoped(scope, record) {
                Ok(recorded) => {
                    let made = make();
                    (recorded.join().unwrap_or_else(|_| Err(not_recorded("the node's log says why"))), made)
                }
                Err(error) => (Err(not_recorded(&error.to_string())), Err(NotMade::NoAddress)),
            }
        });
        match (recorded, made_too) {
            (Ok(recorded), result) => made(result).map(|()| recorded),
            (Err(error), Err(NotMade::NoAddress)) => Err((error, false)),
            (Err(error), Ok(()) | Err(NotMade::Failed(_))) => Err((error, true)),
        }
    }

    /// Makes the pod's device, with the addresses that are told.
    fn device(
        &self,
        conf: &Conf,
        workload: &Workload,
        request: &Request,
        (netns, cookie): (&Netns, u64),
        (families, told): (&[Family], Receiver<Vec<IpAddr>>),
        mac: Mac,
    ) -> Result<(), NotMade> {
        let routes = conf.routes();
        let early = told.try_recv().ok();
        let wanted = Wanted {
            host_name: &workload.interface,
            pod_name: &workload.ifname,
            netns,
            mtu: self.mtu(conf),
            mac,
            addresses: early.as_deref().unwrap_or_default(),
            routes: &routes,
            forwarding: conf.container_settings.allow_ip_forwarding,
        };
        let mut host = Handle::open().map_err(DeviceError::Kernel)?;
        self.keep(&wanted, workload, request, cookie);
        let started = Instant::now();
        device::begin(&mut host, &wanted, families)?;
        let mut took = started.elapsed();
        let late = if early.is_none() { told.recv().ok() } else { None };
        let Some(addresses) = early.as_ref().or(late.as_ref()) else {
            // What can't be deleted now is swept later.
            let _ = host.delete_link(wanted.host_name);
            self.keeper.forget(wanted.host_name);
            return Err(NotMade::NoAddress);
        };
        let wanted = Wanted { addresses, ..wanted };
        if late.is_some() {
            self.keep(&wanted, workload, request, cookie);
        }
        let started = Instant::now();
        device::finish(&mut host, &wanted).map_err(DeviceError::Kernel)?;
        took += started.elapsed();
        self.phases.took(Phase::Device, took);
        Ok(())
    }

    /// Waits until the kernel holds the endpoint.
    fn programmed(&self, conf: &Conf, workload: &Workload, addresses: &[IpAddr]) -> Result<(), CniError> {
        let patience = waits::policy(conf);
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
    labels.insert("projectcalico.org/namespace", &workload.namespace);
    labels.insert("projectcalico.org/orchestrator", workload.orchestrator);
    let account = match said.service_account_name.as_str() {
        "" => workload.service_account.clone(),
        account => account.to_owned(),
    };
    if !account.is_empty() && account.len() < 63 {
        labels.insert("projectcalico.org/serviceaccount", &account);
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
