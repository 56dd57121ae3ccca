//! Pods: a network namespace, wired by the real CNI plugin, or by the lab itself as the bare path to compare with.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tortie_net::{Mac, host_net};
use tortie_netlink::{AddressSpec, Handle, NETNS_DIR, Netns, NextHop, Route, RouteProtocol, VethPeer, VethSpec};

use crate::cni::{Call, CniFailure};
use crate::fabric::{everywhere, forward};
use crate::lab::{Shared, label_map};
use crate::node::Node;
use crate::place::Place;
use crate::state::PodRecord;
use crate::topology::Store;
use crate::view::View;
use crate::{kubernetes, signals};

/// Gateway of pods that the lab wires itself; the pod is told where it is, no ARP is needed.
const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 1, 1));
/// Name of a pod's interface.
const IFNAME: &str = "eth0";

/// A pod. Handles are cheap; the pod lives until it is deleted or the lab goes.
#[derive(Clone, Debug)]
pub struct Pod {
    shared: Arc<Shared>,
    record: PodRecord,
}

impl Node {
    /// Makes a pod and calls CNI ADD for it. A pod that could not be added leaves nothing behind; the error may be
    /// downcast to [`CniFailure`].
    pub fn add_pod(&self, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Result<Pod> {
        let mut pod = self.prepare_pod(namespace, name, labels)?;
        match pod.cni_add() {
            Ok(Ok(_)) => Ok(pod),
            failed => {
                // As runtimes do it: what ADD may have left is taken away, the first error is the one to tell.
                let _ = pod.cni("DEL");
                pod.remove_netns()?;
                match failed {
                    Ok(Err(failure)) => Err(failure).with_context(|| format!("add pod {}", pod.title())),
                    other => other.map(|_| pod.clone()),
                }
            }
        }
    }

    /// Makes a pod's namespace alone, for tests that call the plugin themselves.
    pub fn prepare_pod(&self, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Result<Pod> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let _gate = signals::gate();
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let record = PodRecord {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: self.name().to_owned(),
            container_id: format!("{}-{pid}-{count}", self.shared().record.id),
            netns: self.shared().netns(&format!("pod-{namespace}.{name}")),
            labels: label_map(labels),
            ips: Vec::new(),
            host_interface: None,
            bare: false,
        };
        self.shared().dir.save_pod(&record)?;
        if let Err(error) = Netns::create_named(&record.netns) {
            if !error.is_exists() {
                self.shared().dir.forget_pod(&record);
            }
            return Err(error.into());
        }
        Handle::open_in(&Netns::named(&record.netns)?)?.set_loopback_up()?;
        if self.shared().record.topology.store == Store::Kubernetes {
            kubernetes::add_pod(self.shared(), &record)?;
        }
        Ok(Pod { shared: self.shared().clone(), record })
    }

    /// A pod that the lab wires itself, with no policy: the bare routed veth path that Tortie is compared with.
    pub fn add_bare_pod(&self, namespace: &str, name: &str, ip: IpAddr) -> Result<Pod> {
        let mut pod = self.prepare_pod(namespace, name, &[])?;
        pod.record.ips = vec![ip];
        pod.record.bare = true;
        let host_name = format!("bare{}", self.shared().dir.pods()?.len());
        pod.record.host_interface = Some(host_name.clone());
        self.shared().dir.save_pod(&pod.record)?;
        let netns = Netns::named(&pod.record.netns)?;
        let mut host = self.netlink()?;
        let peer = VethPeer { name: IFNAME, mac: None, netns: Some(netns.as_fd()) };
        let mac = Some(Mac::WORKLOAD_HOST_SIDE);
        let index = host.create_veth(&VethSpec { name: &host_name, mac, mtu: None, up: true, peer })?;
        host.add_route(Route::link(host_net(ip), index, RouteProtocol::BOOT))?;
        self.netns()?.run(forward)??;
        let mut inside = Handle::open_in(&netns)?;
        inside.set_link_up(IFNAME, true)?;
        let link = inside.link(IFNAME)?.index;
        inside.add_address(&AddressSpec::new(link, host_net(ip)))?;
        inside.set_neighbour(link, GATEWAY, Mac::WORKLOAD_HOST_SIDE)?;
        inside.add_route(Route::link(host_net(GATEWAY), link, RouteProtocol::BOOT))?;
        let hop = NextHop::via(GATEWAY, link);
        inside.add_route(Route::via(everywhere(ip), vec![hop], RouteProtocol::BOOT))?;
        Ok(pod)
    }
}

impl Pod {
    pub(crate) fn from_record(shared: &Arc<Shared>, record: PodRecord) -> Pod {
        Pod { shared: shared.clone(), record }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// `namespace/name`.
    pub fn title(&self) -> String {
        self.record.title()
    }

    /// A handle of its node, to call plugins by; it does not own the node's process.
    pub(crate) fn node(&self) -> Result<Node> {
        Ok(Node::new(&self.shared, self.shared.record.topology.machine(&self.record.node)?))
    }

    /// Where its lab keeps facts.
    pub(crate) fn store(&self) -> Store {
        self.shared.record.topology.store
    }

    /// Name of its WorkloadEndpoint, as upstream makes it: parts joined by '-', a '-' inside a part doubled.
    pub fn endpoint_name(&self) -> String {
        let part = |text: &str| text.replace('-', "--");
        format!("{}-k8s-{}-{IFNAME}", part(&self.record.node), part(&self.record.name))
    }

    /// Name of its interface on the host, from the result of ADD. Panics when it was not added.
    pub fn host_interface(&self) -> &str {
        self.record.host_interface.as_deref().expect("a pod that was added has an interface on its host")
    }

    /// Everything that is recorded of it.
    pub fn record(&self) -> &PodRecord {
        &self.record
    }

    /// Its addresses.
    pub fn ips(&self) -> &[IpAddr] {
        &self.record.ips
    }

    /// Its first address. Panics when it has none.
    pub fn ip(&self) -> IpAddr {
        *self.record.ips.first().expect("a pod that was added has an address")
    }

    /// Path of its network namespace, as in `CNI_NETNS`.
    pub fn netns_path(&self) -> String {
        Path::new(NETNS_DIR).join(&self.record.netns).to_string_lossy().into_owned()
    }

    /// As a place to probe from and to.
    pub fn place(&self) -> Place {
        Place::new(&self.title(), &self.record.netns, self.record.ips.clone())
    }

    /// How programs in it see the system: its network, its node's files.
    pub fn view(&self) -> View {
        let PodRecord { node, netns, name, .. } = &self.record;
        View::new(&self.shared.dir, &self.shared.record, node, netns.clone(), name)
    }

    /// Runs a program in it and returns its output, whatever its exit code.
    pub fn exec(&self, command: &[&str]) -> Result<Output> {
        let [program, args @ ..] = command else { bail!("no program to run") };
        let mut command = self.view().command(program, false)?;
        command.args(args).output().with_context(|| format!("run {program} in {}", self.title()))
    }

    /// `CNI_ARGS` of its calls.
    pub fn cni_args(&self) -> String {
        let PodRecord { namespace, name, container_id, .. } = &self.record;
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={container_id}"
        )
    }

    /// Calls the node's plugins with a command.
    pub fn cni(&self, command: &str) -> Result<Result<Value, CniFailure>> {
        let node = self.node()?;
        let (netns, args) = (self.netns_path(), self.cni_args());
        let container_id = &self.record.container_id;
        let call = Call { command, container_id, netns: Some(&netns), ifname: IFNAME, args: &args };
        node.cni_chain(&call, &self.record.labels, None)
    }

    /// Calls ADD and takes the addresses from its result.
    pub fn cni_add(&mut self) -> Result<Result<Value, CniFailure>> {
        let answer = match self.cni("ADD")? {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure)),
        };
        let ips = answer["ips"].as_array().with_context(|| format!("a result of ADD without ips: {answer}"))?;
        let ip = |entry: &Value| entry["address"].as_str()?.split('/').next()?.parse().ok();
        let ips: Option<Vec<IpAddr>> = ips.iter().map(ip).collect();
        self.record.ips = ips.with_context(|| format!("an address in the result of ADD is none: {answer}"))?;
        let outside = |i: &&Value| i["sandbox"].as_str().is_none_or(str::is_empty);
        let host = answer["interfaces"].as_array().into_iter().flatten().find(outside);
        self.record.host_interface = host.and_then(|i| i["name"].as_str()).map(str::to_owned);
        self.shared.dir.save_pod(&self.record)?;
        Ok(Ok(answer))
    }

    /// Calls CNI DEL and removes the namespace.
    pub fn delete(self) -> Result<()> {
        if !self.record.bare {
            self.cni("DEL")?.with_context(|| format!("delete pod {}", self.title()))?;
        }
        self.remove_netns()
    }

    /// Removes the namespace without DEL, as when a sandbox dies.
    pub fn remove_netns(&self) -> Result<()> {
        match Netns::delete_named(&self.record.netns) {
            Err(e) if !e.is_not_found() => return Err(e.into()),
            Ok(()) | Err(_) => {}
        }
        if self.store() == Store::Kubernetes {
            kubernetes::delete_pod(&self.shared, &self.record)?;
        }
        self.shared.dir.forget_pod(&self.record);
        Ok(())
    }

    /// Labels that it was added with.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.record.labels
    }
}
