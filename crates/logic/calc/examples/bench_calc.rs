//! Times the calculator at the size of a large cluster: the first picture, then single changes; prints memory too.
//!
//! `cargo run --release -p tortie-calc --example bench_calc [--unique] [--no-netsets]`; `--unique` gives
//! each endpoint a label of its own, `--no-netsets` leaves the network sets out.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use tortie_api::{
    Action, EntityRule, GlobalNetworkSet, GlobalNetworkSetSpec, Metadata, NetworkPolicy, NetworkPolicySpec, Port,
    Profile, ProfileSpec, Resource, Rule, WorkloadEndpoint, WorkloadEndpointSpec,
};
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Batch;
use tortie_facts::{Key, Revision, Update, Value};
use tortie_net::{IpNet, Protocol};

const LOCAL: usize = 100;
const REMOTE: usize = 10_000;
const POLICIES: usize = 1_000;
const APPS: usize = 200;
const NAMESPACES: usize = 20;
const NETSETS: usize = 10;
const NETS: usize = 10_000;

fn update(resource: Resource) -> Update {
    let metadata = resource.metadata();
    let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
    Update { key, value: Some(Value::resource(resource)), revision: Revision(1) }
}

fn addr(i: usize) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + u32::try_from(i).expect("few endpoints")).into()
}

fn app(i: usize) -> usize {
    i / NAMESPACES % APPS
}

fn endpoint(i: usize, app: usize, unique: bool) -> Update {
    let namespace = format!("ns-{}", i % NAMESPACES);
    let node = if i < LOCAL { "n1".to_owned() } else { format!("node-{}", i % 400) };
    let mut metadata = Metadata::in_namespace(namespace.clone(), format!("{node}-k8s-pod--{i}-eth0"));
    let labels = [
        ("projectcalico.org/namespace", namespace.clone()),
        ("projectcalico.org/orchestrator", "k8s".to_owned()),
        ("app", format!("app-{app}")),
        ("tier", format!("tier-{}", app % 3)),
        ("pod-template-hash", format!("{:010x}", app * 7919)),
    ];
    metadata.labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if unique {
        metadata.labels.insert("statefulset.kubernetes.io/pod-name", format!("pod-{i}"));
    }
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node,
        pod: format!("pod-{i}"),
        endpoint: "eth0".to_owned(),
        interface_name: format!("cali{i:011x}"),
        ip_networks: vec![addr(i).into()],
        profiles: vec![format!("kns.{namespace}"), format!("ksa.{namespace}.default")],
        ..WorkloadEndpointSpec::default()
    };
    update(WorkloadEndpoint { metadata, spec }.into())
}

/// Every tenth policy selects a whole namespace, the others one application. Peers are an application, every tenth
/// time a third of the cluster, every tenth time a global network set.
fn policy(i: usize, port: u16) -> Update {
    let metadata = Metadata::in_namespace(format!("ns-{}", i % NAMESPACES), format!("policy-{i}"));
    let peer = |app: usize| match i % 10 {
        1 => ("all()", format!("tier == 'tier-{}'", app % 3)),
        2 => ("global()", format!("app == 'app-{}'", app % NETSETS)),
        _ => ("", format!("app == 'app-{app}'")),
    };
    let rule = |app: usize, port: u16| {
        let (namespaces, selector) = peer(app);
        Rule {
            action: Action::Allow,
            protocol: Some(Protocol::TCP.into()),
            source: EntityRule { selector, namespace_selector: namespaces.to_owned(), ..EntityRule::default() },
            destination: EntityRule { ports: vec![Port::number(port)], ..EntityRule::default() },
            ..Rule::default()
        }
    };
    let spec = NetworkPolicySpec {
        order: Some(i as f64),
        selector: if i.is_multiple_of(10) {
            "all()".to_owned()
        } else {
            format!("app == 'app-{}'", i / NAMESPACES % 5)
        },
        ingress: vec![rule(i % APPS, port), rule((i + 1) % APPS, port)],
        ..NetworkPolicySpec::default()
    };
    update(NetworkPolicy { metadata, spec }.into())
}

fn profile(namespace: usize, env: &str) -> Update {
    let any = || vec![Rule { action: Action::Allow, ..Rule::default() }];
    let labels = [("pcns.projectcalico.org/name", format!("ns-{namespace}")), ("pcns.env", env.to_owned())];
    let labels_to_apply = labels.into_iter().collect();
    let spec = ProfileSpec { ingress: any(), egress: any(), labels_to_apply };
    update(Profile { metadata: Metadata::named(format!("kns.ns-{namespace}")), spec }.into())
}

fn netset(i: usize, nets: usize) -> Update {
    let mut metadata = Metadata::named(format!("set-{i}"));
    metadata.labels.insert("app", format!("app-{i}"));
    let net = |n: usize| {
        let host = 0xc000_0000 + u32::try_from((i * NETS + n) * 16).expect("few prefixes");
        IpNet::new(Ipv4Addr::from(host).into(), 28).expect("a good length").into()
    };
    update(GlobalNetworkSet { metadata, spec: GlobalNetworkSetSpec { nets: (0..nets).map(net).collect() } }.into())
}

fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("kibibytes") / 1024.0
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Applies and flushes each update alone; prints the median and the 99th percentile.
fn measure(what: &str, calculator: &mut Calculator, updates: impl Iterator<Item = Update>) {
    let mut times: Vec<Duration> = updates
        .map(|update| {
            let start = Instant::now();
            calculator.apply(update);
            let batch = calculator.flush();
            let took = start.elapsed();
            drop(batch);
            took
        })
        .collect();
    times.sort_unstable();
    let at = |share: usize| micros(times[(times.len() - 1) * share / 100]);
    println!("{what:<52} p50 {:>9.1} us   p99 {:>9.1} us   n {}", at(50), at(99), times.len());
}

fn count(batch: &Batch) -> String {
    let members: usize = batch
        .sets
        .values()
        .map(|change| match change {
            tortie_desired::SetChange::Whole { kind: _, members } => members.len(),
            tortie_desired::SetChange::Delta { .. } | tortie_desired::SetChange::Removed => 0,
        })
        .sum();
    format!("{} policies, {} sets, {members} members", batch.policies.len(), batch.sets.len())
}

fn main() {
    let unique = std::env::args().any(|arg| arg == "--unique");
    let netsets = !std::env::args().any(|arg| arg == "--no-netsets");
    let before = rss_mib();
    let mut calculator = Calculator::new("n1", Overrides::default());
    let mut applying = Duration::ZERO;
    let mut apply = |update: Update| {
        let start = Instant::now();
        calculator.apply(update);
        applying += start.elapsed();
    };
    (0..NAMESPACES).for_each(|n| apply(profile(n, "live")));
    (0..POLICIES).for_each(|i| apply(policy(i, 80)));
    (0..LOCAL + REMOTE).for_each(|i| apply(endpoint(i, app(i), unique)));
    if netsets {
        (0..NETSETS).for_each(|i| apply(netset(i, NETS)));
    }
    let applied = rss_mib();
    calculator.in_sync();
    let start = Instant::now();
    let batch = calculator.flush();
    let flushing = start.elapsed();
    println!(
        "sync: apply {:.1} ms + flush {:.1} ms; {}",
        micros(applying) / 1e3,
        micros(flushing) / 1e3,
        count(&batch)
    );
    drop(batch);
    println!("RSS MiB: {before:.1} at start, {applied:.1} with all facts, {:.1} after the first flush", rss_mib());

    let moved = |i: usize, to: usize| endpoint(LOCAL + i * 37 % REMOTE, to, unique);
    measure(
        "label of one remote endpoint",
        &mut calculator,
        (0..2000).map(|i| moved(i, (app(i) + 1 + i / 1000) % APPS)),
    );
    measure("label of one local endpoint", &mut calculator, (0..1000).map(|i| endpoint(i % LOCAL, i % 7, unique)));
    measure("ports of one policy", &mut calculator, (0..1000).map(|i| policy(i, 81)));
    measure("peers of one policy", &mut calculator, (0..1000).map(|i| policy(i, 82)));
    let selected = |i: usize| policy(i / 2 * 10, if i.is_multiple_of(2) { 83 } else { 84 });
    measure("ports of a policy for a whole namespace", &mut calculator, (0..200).map(selected));
    measure(
        "label of one namespace",
        &mut calculator,
        (0..100).map(|i| profile(i % NAMESPACES, if (i / NAMESPACES).is_multiple_of(2) { "test" } else { "live" })),
    );
    if netsets {
        measure(
            "one prefix of a network set of 10,000",
            &mut calculator,
            (0..50).map(|i| netset(i % NETSETS, NETS - 1 - i)),
        );
    }
    println!("RSS MiB: {:.1} at the end", rss_mib());
}
