//! The figures, one file each.

mod bgp;
mod bgp_bfd;
mod bgp_kernel;
mod bgp_mesh;
mod bgp_reflector;
mod calculation;
mod cni;
mod control;
mod datapath;
mod etcd;
mod etcd_addresses;
mod kernel;
mod latency;
mod memory;
mod parallel;
mod tunnels;

use anyhow::Result;

use crate::Setting;
use crate::report::Finding;

/// A benchmark.
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub what: &'static str,
    /// Runs it.
    pub run: fn(&Setting) -> Result<Vec<Finding>>,
}

/// All benchmarks.
pub const FIGURES: &[Figure] = &[
    Figure { name: "cni", what: "CNI ADD and DEL, one at a time, beside ptp + host-local", run: cni::run },
    Figure { name: "etcd-cni", what: "the same with a node on etcd", run: cni::on_etcd },
    Figure { name: "kubernetes-cni", what: "the same with a node on a Kubernetes API", run: cni::on_kubernetes },
    Figure { name: "cni-parallel", what: "CNI ADD, 16 at once, 500 pods, beside ptp + host-local", run: parallel::run },
    Figure {
        name: "policy-latency",
        what: "write of a policy, labels or an endpoint until the kernel has it, 100 local endpoints",
        run: latency::run,
    },
    Figure {
        name: "datapath",
        what: "pod to pod with 1, 100, 1,000 policies beside the bare path",
        run: datapath::run,
    },
    Figure {
        name: "tunnels",
        what: "throughput pod to pod through VXLAN, IPIP and WireGuard, beside devices set up by hand",
        run: tunnels::run,
    },
    Figure {
        name: "node-memory",
        what: "the node with 100 local endpoints, 1,000 policies, 10,000 remote endpoints: memory, time to in sync",
        run: memory::run,
    },
    Figure {
        name: "node-start",
        what: "the same with 10 sets of 10,000 prefixes, and with 1,000 local endpoints: start to in sync, peak",
        run: memory::start,
    },
    Figure {
        name: "kernel-table",
        what: "nf_tables alone: one member into 500 and 2,000 sets and chains, all of them read back",
        run: kernel::run,
    },
    Figure {
        name: "calculation",
        what: "from facts to desired state, without a kernel: snapshots and single steps",
        run: calculation::run,
    },
    Figure {
        name: "etcd-calicoctl",
        what: "calicoctl apply, get, delete of 10,000 resources in etcd, and get nodes: time, memory",
        run: etcd::calicoctl,
    },
    Figure {
        name: "etcd-snapshot",
        what: "100,000 objects of etcd listed and calculated, beside the same read by etcdctl",
        run: etcd::snapshot,
    },
    Figure {
        name: "etcd-ipam",
        what: "addresses on etcd, one at a time and from 16 processes, beside the bare round trips",
        run: etcd_addresses::run,
    },
    Figure { name: "binary-size", what: "size of the stripped release binary", run: control::size },
    Figure { name: "calicoctl", what: "calicoctl version, whole process, beside /bin/true", run: control::version },
    Figure { name: "demo", what: "the demo, from start to finished matrix", run: control::demo },
    Figure { name: "bgp-500k", what: "500,000 routes over one session, beside BIRD with BIRD", run: bgp::run },
    Figure {
        name: "bgp-mesh",
        what: "meshes of 2, 50, 100 nodes and two reflectors with 100 clients until all hold all, beside BIRD",
        run: bgp_mesh::run,
    },
    Figure {
        name: "bgp-reflector",
        what: "a block moves between two of a reflector's 300 clients, beside BIRD",
        run: bgp_reflector::run,
    },
    Figure { name: "bgp-bfd", what: "a peer falls silent: until its routes are gone, with BFD", run: bgp_bfd::run },
    Figure {
        name: "bgp-kernel",
        what: "10,000 learned routes into the kernel, beside one bare netlink batch",
        run: bgp_kernel::run,
    },
];
