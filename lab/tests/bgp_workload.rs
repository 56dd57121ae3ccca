//! A workload that is a router: it reaches its node's speaker at the address for such workloads, though that listens on
//! the node's own address alone, and routes pass both ways; its filter goes by the interface. It is BIRD, FRR or GoBGP.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::process::{Child, Stdio};

use tortie_lab::{Lab, Node, Pod};
use tortie_net::Family;

use routers::{FRR, Make, OPEN, START, tortie_bgp, tortie_bgp_json, until};

const PEERING: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {localWorkloadPeeringIPV4: 169.254.1.179, localWorkloadPeeringIPV6: 'fd00:169::179', bindMode: NodeIP}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: in}
spec:
  importV4: [{interface: 'cali*', action: Accept}, {action: Reject}]
  importV6: [{interface: 'cali*', action: Accept}, {action: Reject}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: routers}
spec: {localWorkloadSelector: router == 'yes', asNumber: 65099, filters: [in]}
";

/// What differs by family.
struct By {
    family: Family,
    /// The node's address for such workloads.
    speaker: &'static str,
    /// The workload's own route.
    route: &'static str,
    /// The length of the node's blocks.
    block: &'static str,
    /// As BIRD and `ip` call it.
    name: &'static str,
    option: &'static str,
}

const V4: By = By {
    family: Family::V4,
    speaker: "169.254.1.179",
    route: "100.64.7.0/24",
    block: "/26",
    name: "ipv4",
    option: "-4",
};
const V6: By = By {
    family: Family::V6,
    speaker: "fd00:169::179",
    route: "2001:db8:7::/64",
    block: "/122",
    name: "ipv6",
    option: "-6",
};

/// A program in a pod; it ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn addresses(node: &Node, pod: &Pod, by: &By) -> String {
    let args = [by.option, "-o", "address", "show", "dev", pod.host_interface()];
    let output = node.command("ip").unwrap().args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts the router in its pod, with a route of its own.
fn started(make: Make, by: &By, pod: &Pod, path: &impl Fn(&str) -> String) -> Running {
    let By { family, speaker, route, block: _, name, option: _ } = by;
    let (id, own) = (pod.ip(), pod.place().ip(*family).unwrap());
    let (config, words) = match make {
        Make::Bird => (
            format!(
                "router id {id};\nprotocol device {{}}\nprotocol static {{ {name}; route {route} blackhole; }}\n\
                 protocol bgp node {{ local {own} as 65099; neighbor {speaker} as 64512; multihop; connect retry time \
                 2; {name} {{ import all; export all; }}; }}\n"
            ),
            vec!["bird".to_owned(), "-f".to_owned(), "-c".to_owned(), path("conf"), "-s".to_owned(), path("ctl")],
        ),
        Make::GoBgp => (
            format!(
                "[global.config]\n as = 65099\n router-id = \"{id}\"\n[[neighbors]]\n [neighbors.config]\n  \
                 neighbor-address = \"{speaker}\"\n  peer-as = 64512\n [neighbors.ebgp-multihop.config]\n  enabled = \
                 true\n  multihop-ttl = 3\n [neighbors.timers.config]\n  connect-retry = 5\n  \
                 idle-hold-time-after-reset = 1\n [[neighbors.afi-safis]]\n  [neighbors.afi-safis.config]\n   \
                 afi-safi-name = \"{name}-unicast\"\n"
            ),
            vec![
                "gobgpd".to_owned(),
                "-f".to_owned(),
                path("conf"),
                "--api-hosts".to_owned(),
                "127.0.0.1:50051".to_owned(),
            ],
        ),
        // Without zebra it takes every next hop for one that it reaches.
        Make::Frr => {
            std::fs::create_dir_all(path("vty")).unwrap();
            (
                format!(
                    "router bgp 65099\n bgp router-id {id}\n no bgp ebgp-requires-policy\n no bgp network \
                     import-check\n neighbor {speaker} remote-as 64512\n neighbor {speaker} update-source {own}\n \
                     neighbor {speaker} ebgp-multihop 3\n neighbor {speaker} timers connect 2\n address-family {name} \
                     unicast\n  network {route}\n  neighbor {speaker} activate\n exit-address-family\n"
                ),
                vec![
                    format!("{FRR}/bgpd"),
                    "--no_zebra".to_owned(),
                    "--skip_runas".to_owned(),
                    "-f".to_owned(),
                    path("conf"),
                    "-i".to_owned(),
                    path("pid"),
                    "--vty_socket".to_owned(),
                    path("vty"),
                ],
            )
        }
    };
    std::fs::write(path("conf"), config).unwrap();
    let mut command = pod.view().command("setpriv", true).unwrap();
    command.args(["--pdeathsig", "KILL"]).args(words);
    let running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    if make == Make::GoBgp {
        until("GoBGP takes its route", || {
            let said = pod.exec(&["gobgp", "global", "rib", "-a", name, "add", route]).unwrap();
            let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
            if text.trim().is_empty() { Ok(()) } else { Err(text) }
        });
    }
    running
}

#[test]
#[ignore = "needs root"]
fn a_workload_peers_with_its_node() {
    peers_with_its_node(Make::Bird, &V4);
}

#[test]
#[ignore = "needs root"]
fn a_workload_peers_with_its_node_over_ipv6() {
    peers_with_its_node(Make::Bird, &V6);
}

#[test]
#[ignore = "needs root"]
fn a_workload_that_is_frr_peers_with_its_node() {
    peers_with_its_node(Make::Frr, &V4);
}

#[test]
#[ignore = "needs root"]
fn a_workload_that_is_frr_peers_with_its_node_over_ipv6() {
    peers_with_its_node(Make::Frr, &V6);
}

#[test]
#[ignore = "needs root"]
fn a_workload_that_is_gobgp_peers_with_its_node() {
    peers_with_its_node(Make::GoBgp, &V4);
}

#[test]
#[ignore = "needs root"]
fn a_workload_that_is_gobgp_peers_with_its_node_over_ipv6() {
    peers_with_its_node(Make::GoBgp, &V6);
}

fn peers_with_its_node(make: Make, by: &By) {
    if !make.installed() {
        return;
    }
    let lab = Lab::builder().nodes(1).dual_stack().env("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept").up().unwrap();
    lab.start(START).unwrap();
    lab.apply(PEERING).unwrap();
    lab.apply(OPEN).unwrap();
    let node = lab.node(1);
    let plain = node.add_pod("default", "plain", &[]).unwrap();
    let router = node.add_pod("default", "router", &[("router", "yes")]).unwrap();
    until("the router's interface has the address", || {
        let text = addresses(node, &router, by);
        if text.contains(by.speaker) { Ok(()) } else { Err(text) }
    });
    assert!(!addresses(node, &plain, by).contains(by.speaker), "another workload's has not");

    let folder = lab.folder(node.name()).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let _running = started(make, by, &router, &path);
    let peer = router.place().ip(by.family).unwrap().to_string();
    until("the session is up and the node holds the workload's route", || {
        let answer = tortie_bgp_json(&lab, 1, &["routes", &peer]);
        let received = answer[0]["routes"]["received"].as_array().cloned().unwrap_or_default();
        let holds = received.iter().any(|route| route["prefix"] == by.route);
        if holds { Ok(()) } else { Err(tortie_bgp(&lab, 1, &["explain", &peer])) }
    });
    until("the kernel leads there through the workload", || {
        let output = node.command("ip").unwrap().args([by.option, "route", "show", by.route]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let metric = (i32::MAX - 100).to_string();
        if [peer.as_str(), router.host_interface(), &metric].iter().all(|part| text.contains(part)) {
            Ok(())
        } else {
            Err(text)
        }
    });
    until("the workload holds the node's block", || {
        let words: Vec<String> = match make {
            Make::GoBgp => ["gobgp", "global", "rib", "-a", by.name].map(str::to_owned).into(),
            Make::Bird => ["birdc", "-s", &path("ctl"), "show", "route"].map(str::to_owned).into(),
            Make::Frr => {
                let words = format!("show bgp {} unicast", by.name);
                ["vtysh", "--vty_socket", &path("vty"), "-c", &words].map(str::to_owned).into()
            }
        };
        let output = router.exec(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains(by.block) { Ok(()) } else { Err(text) }
    });

    lab.ctl(&["delete", "bgppeer", "routers"], "").unwrap();
    until("the address goes with the peering", || {
        let text = addresses(node, &router, by);
        if text.contains(by.speaker) { Err(text) } else { Ok(()) }
    });
}
