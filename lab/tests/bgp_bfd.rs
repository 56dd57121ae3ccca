//! BFD with real routers, in both families: it comes up in both directions, and a silent router's routes go long before
//! any BGP timer. GoBGP has no BFD.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::time::Instant;

use routers::{Make, Router, START, tortie_bgp, tortie_bgp_json, until};
use tortie_lab::Lab;
use tortie_net::{Family, IpNet};

/// The router's address, the node's, and what the router announces.
struct Ends {
    family: &'static str,
    router: &'static str,
    node: &'static str,
    net: &'static str,
}

fn ends(family: Family) -> Ends {
    match family {
        Family::V4 => Ends { family: "ipv4", router: "172.17.8.1", node: "172.17.8.101", net: "203.0.113.0/24" },
        Family::V6 => Ends { family: "ipv6", router: "fd00:8::1", node: "fd00:8::65", net: "2001:db8:f::/48" },
    }
}

fn config(make: Make, ends: &Ends) -> String {
    let Ends { family, router, node, net } = ends;
    match make {
        Make::Bird => format!(
            "router id 172.17.8.1;\nprotocol device {{}}\nprotocol static {{ {family}; route {net} blackhole; }}\n\
             protocol bfd {{ interface \"*\" {{ interval 50 ms; multiplier 3; }}; }}\nprotocol bgp node {{ local {router} \
             as 65001; neighbor {node} as 64512; bfd on; graceful restart on; connect retry time 2; {family} {{ import \
             all; export where source = RTS_STATIC; }}; }}\n"
        ),
        Make::Frr => {
            let ip = if *family == "ipv6" { "ipv6" } else { "ip" };
            format!(
                "hostname r\n{ip} route {net} blackhole\nbfd\n profile fast\n  receive-interval 50\n  transmit-interval \
                 50\nrouter bgp 65001\n bgp router-id 172.17.8.1\n no bgp ebgp-requires-policy\n no bgp network \
                 import-check\n bgp graceful-restart\n neighbor {node} remote-as 64512\n neighbor {node} bfd\n neighbor \
                 {node} bfd profile fast\n neighbor {node} timers connect 2\n address-family {family} unicast\n  network \
                 {net}\n  neighbor {node} activate\n exit-address-family\n"
            )
        }
        Make::GoBgp => unreachable!("GoBGP knows no BFD"),
    }
}

/// What the router says of its side.
fn sees_us(router: &Router<'_>, make: Make, node: &str) -> Result<(), String> {
    let text = match make {
        Make::Bird => router.ask("show bfd sessions"),
        Make::Frr => router.ask("show bfd peers brief"),
        Make::GoBgp => String::new(),
    };
    let up = text.lines().any(|line| line.contains(node) && line.to_lowercase().contains(" up"));
    if up { Ok(()) } else { Err(text) }
}

fn a_silent_router_is_noticed(make: Make, family: Family) {
    if !make.installed() {
        return;
    }
    let ends = ends(family);
    let lab = Lab::builder().nodes(1).dual_stack().router("router").up().unwrap();
    lab.start(START).unwrap();
    let on_router = |program: &str, args: &[&str]| {
        let mut command = lab.view("router").unwrap().command(program, false).unwrap();
        assert!(command.args(args).status().unwrap().success(), "{program} {args:?}");
    };
    let router = Router::start(&lab, "router", make, &config(make, &ends));
    let peer = format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: router, annotations: {{bgp.tortie/bfd: \
         50ms*3}}}}\nspec: {{peerIP: '{}', asNumber: 65001}}\n",
        ends.router
    );
    lab.apply(&peer).unwrap();
    let net: IpNet = ends.net.parse().unwrap();
    lab.node(1).wait_route(START, "learned from the router", |route| route.net == net).unwrap();
    until("the router's BFD is up", || sees_us(&router, make, ends.node));
    until("the node's BFD is up", || {
        let state = tortie_bgp_json(&lab, 1, &["explain", ends.router]);
        if state["bfd"] == "Up" { Ok(()) } else { Err(state.to_string() + &lab.node(1).log()) }
    });
    // Else the address of IPv6 goes with the line.
    on_router("sysctl", &["-qw", "net.ipv6.conf.eth0.keep_addr_on_down=1"]);
    on_router("ip", &["link", "set", "eth0", "down"]);
    let cut = Instant::now();
    // Hold time and graceful restart alone would keep it for more than three minutes.
    until("the route goes", || {
        let there = lab.node(1).routes().unwrap().iter().any(|route| route.net == net);
        if there { Err(tortie_bgp(&lab, 1, &["explain", ends.router])) } else { Ok(()) }
    });
    println!("{make:?}, {family}: the route was gone {} ms after the line was cut", cut.elapsed().as_millis());
    on_router("ip", &["link", "set", "eth0", "up"]);
    lab.node(1).wait_route(START, "learned again", |route| route.net == net).unwrap();
}

#[test]
#[ignore = "needs root"]
fn bird_that_falls_silent_is_noticed() {
    a_silent_router_is_noticed(Make::Bird, Family::V4);
}

#[test]
#[ignore = "needs root"]
fn bird_that_falls_silent_is_noticed_over_ipv6() {
    a_silent_router_is_noticed(Make::Bird, Family::V6);
}

#[test]
#[ignore = "needs root"]
fn frr_that_falls_silent_is_noticed() {
    a_silent_router_is_noticed(Make::Frr, Family::V4);
}

#[test]
#[ignore = "needs root"]
fn frr_that_falls_silent_is_noticed_over_ipv6() {
    a_silent_router_is_noticed(Make::Frr, Family::V6);
}
