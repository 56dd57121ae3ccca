//! A cluster on a real Kubernetes API: NetworkPolicies, and labels of pods and namespaces, are applied by `kubectl` and
//! enforced by all nodes.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::time::Duration;

use tortie_lab::{Lab, Node, Outcome, Pod, Probe, Store, kubernetes, probe};

const START: Duration = Duration::from_secs(60);

/// Who may reach the shop's web pod, and by which port.
const SHOP: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchExpressions: [{key: app, operator: In, values: [till]}]}
    - namespaceSelector: {matchLabels: {team: audit}}
    ports:
    - {protocol: TCP, port: 9000}
    - {protocol: UDP, port: 9000, endPort: 9010}
";

/// What a pod outside may reach: the network of pods but one address.
fn outgoing(excepted: &Pod) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: outgoing, namespace: other}}
spec:
  podSelector: {{}}
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {{cidr: 192.168.0.0/16, except: [{}/32]}}
",
        excepted.ip()
    )
}

#[track_caller]
fn becomes(from: &Pod, to: &Pod, probe: Probe, outcome: Outcome) {
    let reached = probe::becomes(&from.place(), &to.place(), &probe, outcome, START).unwrap();
    assert!(reached, "{} to {} by {probe} becomes {outcome:?}", from.title(), to.title());
}

#[track_caller]
fn stays(from: &Pod, to: &Pod, probe: Probe, outcome: Outcome) {
    let seen = probe::ask(&from.place(), &to.place(), &probe).unwrap();
    assert_eq!(seen, outcome, "{} to {} by {probe}", from.title(), to.title());
}

/// The agent is the service account of the manifests, not the administrator that everything else in a lab is.
fn agent_has_the_least_rights(node: &Node) {
    let ask = |args: &[&str]| {
        let output = node.command("kubectl").unwrap().envs(node.env()).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let user = ask(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(user, "system:serviceaccount:kube-system:calico-node");
    for (verb, what, answer) in [
        ("list", "networkpolicies.networking.k8s.io", "yes"),
        ("create", "globalnetworkpolicies.crd.projectcalico.org", "no"),
        ("delete", "ippools.crd.projectcalico.org", "no"),
        ("create", "pods", "no"),
        ("delete", "nodes", "no"),
        ("get", "secrets", "no"),
    ] {
        assert_eq!(ask(&["auth", "can-i", verb, what, "--all-namespaces"]), answer, "{verb} {what}");
    }
}

#[test]
#[ignore = "needs root"]
fn policies_of_kubernetes_are_enforced_between_nodes() {
    if let Some(missing) = kubernetes::missing() {
        eprintln!("skipped: {missing} is not there");
        return;
    }
    let lab = Lab::builder().nodes(2).store(Store::Kubernetes).up().unwrap();
    lab.start(START).unwrap();
    let kubectl = |args: &str, stdin: &str| lab.kubectl(&args.split(' ').collect::<Vec<_>>(), stdin).unwrap();
    agent_has_the_least_rights(lab.node(1));
    let web = lab.node(1).add_pod("shop", "web-1", &[("app", "web")]).unwrap();
    let till = lab.node(2).add_pod("shop", "till", &[("app", "till")]).unwrap();
    let stranger = lab.node(2).add_pod("other", "stranger", &[]).unwrap();
    lab.wait_routes(START).unwrap();
    for (from, to) in [(&till, &web), (&stranger, &web), (&web, &stranger)] {
        becomes(from, to, Probe::tcp(9000), Outcome::Open);
        becomes(from, to, Probe::udp(9011), Outcome::Open);
    }

    kubectl("apply -f -", SHOP);
    becomes(&stranger, &web, Probe::tcp(9000), Outcome::Dropped);
    stays(&stranger, &web, Probe::udp(9005), Outcome::Dropped);
    stays(&till, &web, Probe::udp(9011), Outcome::Dropped);
    stays(&till, &web, Probe::tcp(9001), Outcome::Dropped);
    for open in [Probe::tcp(9000), Probe::udp(9000), Probe::udp(9010)] {
        stays(&till, &web, open, Outcome::Open);
    }
    stays(&web, &stranger, Probe::tcp(9001), Outcome::Open);

    // Labels of namespaces and pods count as they are now.
    kubectl("label namespace other team=audit", "");
    becomes(&stranger, &web, Probe::tcp(9000), Outcome::Open);
    stays(&stranger, &web, Probe::tcp(9001), Outcome::Dropped);
    kubectl("label pod -n shop till app=closed --overwrite", "");
    becomes(&till, &web, Probe::tcp(9000), Outcome::Dropped);

    kubectl("apply -f -", &outgoing(&web));
    becomes(&stranger, &web, Probe::tcp(9000), Outcome::Dropped);
    stays(&stranger, &till, Probe::tcp(9000), Outcome::Open);

    // A restarted node stands where it stood.
    lab.node(1).kill9().unwrap();
    stays(&till, &web, Probe::tcp(9000), Outcome::Dropped);
    lab.node(1).start().unwrap();
    lab.node(1).wait_in_sync(START).unwrap();
    stays(&till, &web, Probe::tcp(9000), Outcome::Dropped);
    kubectl("delete networkpolicy -n shop web", "");
    kubectl("delete networkpolicy -n other outgoing", "");
    for from in [&till, &stranger] {
        becomes(from, &web, Probe::tcp(9001), Outcome::Open);
    }
    let said = lab.ctl(&["get", "workloadendpoints", "-A"], "").unwrap();
    assert!(said.contains("web-1") && said.contains("stranger"), "{said}");
    for pod in [web, till, stranger] {
        pod.delete().unwrap();
    }

    // Profiles come from namespaces here, so that a configuration that asks for one of its own can't come true.
    let mut conflist = lab.node(1).conflist().unwrap();
    conflist["plugins"][0].as_object_mut().unwrap().remove("policy");
    lab.node(1).set_conflist(&conflist).unwrap();
    let mut refused = lab.node(1).prepare_pod("shop", "refused", &[]).unwrap();
    let failure = refused.cni_add().unwrap().unwrap_err();
    assert_eq!(failure.code, 7, "an invalid configuration, not one to try again: {failure}");
    assert!(failure.to_string().contains("\"policy\""), "{failure}");
    assert!(refused.cni("DEL").unwrap().is_ok());
    refused.remove_netns().unwrap();
    let left = kubectl("get ipamhandles.crd.projectcalico.org -o name", "");
    assert!(!left.contains("/k8s-pod-network."), "no address of a pod is left: {left}");
}
