//! Gives load-balancer addresses to services, tells them in the services' status, and takes them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use tortie_api::kinds::AssignIps;
use tortie_api::{IpPoolAllowedUse, Kind, KubernetesService, LabelMap, Resource};
use tortie_control::services::{Given, ServiceName, Task, handle, is_ours, next, without};
use tortie_control::{Course, Ledger};
use tortie_datastore::ipam;
use tortie_facts::{Filter, Key};
use tortie_ipam::{Assign, AssignAt, Claimed, Client, Holder, IpamError, Owner, Release, Request, Settings};
use tortie_net::Family;
use tortie_store::mirror::{Mirror, Options};
use tortie_store::{Reader, Store};
use tortie_store_kubernetes::KubernetesStore;
use tracing::{info, warn};

use crate::picture::Picture;

/// The services of Kubernetes, followed by themselves: a cluster that does not let them be read keeps its other
/// controllers.
pub(crate) struct LoadBalancer {
    api: Arc<KubernetesStore>,
    mirror: Mirror,
    picture: Picture,
    /// What was told of each service that lacks an address.
    told: BTreeMap<ServiceName, String>,
}

fn filter() -> Filter {
    Filter::Kind(Kind::KubernetesService)
}

fn services(picture: &Picture) -> impl Iterator<Item = &KubernetesService> {
    picture.resources().filter_map(|one| if let Resource::KubernetesService(one) = one { Some(&**one) } else { None })
}

fn name_of(service: &KubernetesService) -> ServiceName {
    (service.metadata.namespace.clone(), service.metadata.name.clone())
}

/// What is recorded with an address, as upstream has it.
fn holder(service: &KubernetesService, time: String) -> Holder {
    let attrs = [
        ("service", service.metadata.name.clone()),
        ("namespace", service.metadata.namespace.clone()),
        ("type", service.spec.service_type.clone()),
        ("timestamp", time),
    ];
    Holder { handle: Some(handle(service)), attrs: attrs.map(|(name, value)| (name.to_owned(), value)).into() }
}

impl LoadBalancer {
    pub(crate) fn start(api: Arc<KubernetesStore>) -> Result<LoadBalancer> {
        let reader: Arc<dyn Reader> = api.clone();
        let mirror = Mirror::spawn(reader, filter(), Options::default()).context("no thread")?;
        Ok(LoadBalancer { api, mirror, picture: Picture::default(), told: BTreeMap::new() })
    }

    /// Takes in what happened to services; whether anything did.
    pub(crate) fn take_in(&mut self) -> bool {
        self.picture.apply(self.mirror.take())
    }

    /// Does the next task of each service. `facts`: the network's facts; `go_on`: whether this process still leads.
    pub(crate) fn turn(
        &mut self,
        store: &dyn Store,
        facts: &Picture,
        which: AssignIps,
        go_on: &dyn Fn() -> bool,
    ) -> Result<()> {
        if self.picture.course() == Course::Back || !self.picture.in_sync() {
            return Ok(());
        }
        let (ledger, settings) = (Ledger::new(facts.facts()), Arc::new(Settings::from_facts(facts.facts())));
        let given = Given::new(&ledger);
        self.release_abandoned(store, &given, &settings)?;
        let (mut told, mut failed) = (BTreeMap::new(), None);
        for service in services(&self.picture) {
            if !go_on() {
                break;
            }
            let tasks = match next(service, which, &given, &settings.pools) {
                Ok(tasks) => tasks,
                Err(why) => {
                    told.insert(name_of(service), format!("the service gets no load-balancer address: {why}"));
                    continue;
                }
            };
            match self.first(store, service, is_ours(service, which), tasks, &settings) {
                Ok(missing) if missing.is_empty() => {}
                Ok(missing) => drop(told.insert(name_of(service), missing.join("; "))),
                Err(error) => {
                    let (namespace, name) = name_of(service);
                    failed = Some(error.context(format!("service {namespace}/{name}")));
                }
            }
        }
        for ((namespace, service), why) in &told {
            if self.told.get(&(namespace.clone(), service.clone())) != Some(why) {
                warn!(namespace, service, "{why}");
            }
        }
        self.told = told;
        failed.map_or(Ok(()), Err)
    }

    /// Releases what services hold that a fresh listing does not know any more.
    fn release_abandoned(&self, store: &dyn Store, given: &Given, settings: &Arc<Settings>) -> Result<()> {
        if given.abandoned(services(&self.picture)).is_empty() {
            return Ok(());
        }
        let listing = Reader::list(&*self.api, &filter()).context("services")?;
        // A Kubernetes without its own service is a fault, not a fact; what can't be read may hold anything.
        if listing.entries.is_empty() || !listing.invalid.is_empty() {
            return Ok(());
        }
        let there = listing.entries.iter().filter_map(|entry| match entry.value.as_resource().map(|one| &**one) {
            Some(Resource::KubernetesService(service)) => Some(&**service),
            _ => None,
        });
        for ((namespace, service), claimed) in given.abandoned(there) {
            release(store, &claimed, settings)?;
            info!(namespace, service, "load-balancer addresses of a service that is gone are released");
        }
        Ok(())
    }

    /// Does the first task that can be done; why those before it could not.
    fn first(
        &self,
        store: &dyn Store,
        service: &KubernetesService,
        ours: bool,
        tasks: Vec<Task>,
        settings: &Arc<Settings>,
    ) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for task in tasks {
            let family = match &task {
                Task::Assign(family, _) => Some(*family),
                Task::AssignAt(address) => Some(Family::of(*address)),
                Task::Release(_) | Task::Tell(_) => None,
            };
            let Err(error) = self.act(store, service, ours, task, settings) else { break };
            let why = error.downcast::<IpamError>()?;
            missing.push(match family {
                Some(family) => format!("no IPv{} load-balancer address for the service: {why}", family.version()),
                None => format!("the service keeps its load-balancer address: {why}"),
            });
        }
        Ok(missing)
    }

    fn act(
        &self,
        store: &dyn Store,
        service: &KubernetesService,
        ours: bool,
        task: Task,
        settings: &Arc<Settings>,
    ) -> Result<()> {
        let now = ipam::now();
        let time = now.timestamp().to_string().replace('T', " ").replace('Z', " +0000 UTC");
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        match task {
            Task::Release(claimed) => {
                // First nobody is told of them any more.
                let left = without(service, &claimed);
                if ours || service.spec.service_type == "LoadBalancer" {
                    self.api.set_load_balancer(namespace, name, &service.metadata.uid, &left)?;
                }
                release(store, &claimed, settings)?;
                info!(namespace, service = name, "load-balancer addresses are released");
            }
            Task::AssignAt(address) => {
                let plan =
                    AssignAt::new(client(LabelMap::new()), holder(service, time), address, Arc::clone(settings), now);
                ipam::run(store, plan)??;
                info!(namespace, service = name, %address, "a load-balancer address is assigned");
            }
            Task::Assign(family, pools) => {
                let request = Request {
                    pools,
                    // What a picture does not show yet is not given a second time.
                    max_per_handle: 1,
                    ..Request::one(client(self.namespace_labels(namespace)?), holder(service, time), family)
                };
                let got = ipam::run(store, Assign::new(request, Arc::clone(settings), now))??;
                let address = got.addresses.first().map(|one| one.address);
                info!(namespace, service = name, ?address, "a load-balancer address is assigned");
            }
            Task::Tell(addresses) => {
                self.api.set_load_balancer(namespace, name, &service.metadata.uid, &addresses)?;
            }
        }
        Ok(())
    }

    /// Labels of a namespace, by which pools may be chosen.
    fn namespace_labels(&self, namespace: &str) -> Result<LabelMap> {
        let key = Key::resource(Kind::Profile, "", &format!("kns.{namespace}"));
        let entry = Reader::get(&*self.api, &key).context("the service's namespace")?;
        let Some(Resource::Profile(profile)) = entry.as_ref().and_then(|one| one.value.as_resource()).map(|one| &**one)
        else {
            return Ok(LabelMap::new());
        };
        let labels = profile.spec.labels_to_apply.iter();
        Ok(labels.filter_map(|(name, value)| Some((name.strip_prefix("pcns.")?.to_owned(), value))).collect())
    }
}

fn client(namespace_labels: LabelMap) -> Client {
    Client {
        owner: Owner::load_balancer(),
        node_labels: LabelMap::new(),
        namespace_labels,
        purpose: IpPoolAllowedUse::LoadBalancer,
    }
}

fn release(store: &dyn Store, claimed: &[Claimed], settings: &Arc<Settings>) -> Result<()> {
    ipam::run(store, Release::new(claimed.to_vec(), Arc::clone(settings), ipam::now()))??;
    Ok(())
}
