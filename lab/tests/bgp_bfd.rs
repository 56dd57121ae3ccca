//! BFD with real routers: it comes up in both directions, and a silent router's routes go long before any BGP timer.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/routers.rs"]
mod routers;

use std::time::Instant;

use routers::{Make, Router, START, tortie_bgp, tortie_bgp_json, until};
use tortie_lab::Lab;
use tortie_net::IpNet;

const PEER: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: router, annotations: {bgp.tortie/bfd: 50ms*3}}
spec: {peerIP: 172.17.8.1, asNumber: 65001}
";

fn config(make: Make) -> &'static str {
    match make {
        Make::Bird => {
            "router id 172.17.8.1;\nprotocol device {}\nprotocol static { ipv4; route 203.0.113.0/24 blackhole; }\n\
             protocol bfd { interface \"*\" { interval 50 ms; multiplier 3; }; }\nprotocol bgp node { local 172.17.8.1 as \
             65001; neighbor 172.17.8.101 as 64512; bfd on; graceful restart on; connect retry time 2; ipv4 { import all; \
             export where source = RTS_STATIC; }; }\n"
        }
        Make::Frr => {
            "hostname r\nip route 203.0.113.0/24 blackhole\nbfd\n profile fast\n  receive-interval 50\n  \
             transmit-interval 50\nrouter bgp 65001\n bgp router-id 172.17.8.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n bgp \
             graceful-restart\n neighbor 172.17.8.101 remote-as 64512\n neighbor 172.17.8.101 bfd\n neighbor 172.17.8.101 \
             bfd profile fast\n neighbor 172.17.8.101 timers connect 2\n address-family ipv4 unicast\n  network \
             203.0.113.0/24\n exit-address-family\n"
        }
        Make::GoBgp => unreachable!("GoBGP knows no BFD"),
    }
}

/// What the router says of its side.
fn sees_us(router: &Router<'_>, make: Make) -> Result<(), String> {
    let text = match make {
        Make::Bird => router.ask("show bfd sessions"),
        Make::Frr => router.ask("show bfd peers brief"),
        Make::GoBgp => String::new(),
    };
    let up = text.lines().any(|line| line.contains("172.17.8.101") && line.to_lowercase().contains(" up"));
    if up { Ok(()) } else { Err(text) }
}

fn a_silent_router_is_noticed(make: Make) {
    if !make.installed() {
        return;
    }
    let lab = Lab::builder().nodes(1).router("router").up().unwrap();
    lab.start(START).unwrap();
    let router = Router::start(&lab, "router", make, config(make));
    lab.apply(PEER).unwrap();
    let net: IpNet = "203.0.113.0/24".parse().unwrap();
    lab.node(1).wait_route(START, "learned from the router", |route| route.net == net).unwrap();
    until("the router's BFD is up", || sees_us(&router, make));
    until("the node's BFD is up", || {
        let state = tortie_bgp_json(&lab, 1, &["explain", "172.17.8.1"]);
        if state["bfd"] == "Up" { Ok(()) } else { Err(state.to_string() + &lab.node(1).log()) }
    });
    let mut down = lab.view("router").unwrap().command("ip", false).unwrap();
    assert!(down.args(["link", "set", "eth0", "down"]).status().unwrap().success());
    let cut = Instant::now();
    // Hold time and graceful restart alone would keep it for more than three minutes.
    until("the route goes", || {
        let there = lab.node(1).routes().unwrap().iter().any(|route| route.net == net);
        if there { Err(tortie_bgp(&lab, 1, &["explain", "172.17.8.1"])) } else { Ok(()) }
    });
    println!("{make:?}: the route was gone {} ms after the line was cut", cut.elapsed().as_millis());
    let mut up = lab.view("router").unwrap().command("ip", false).unwrap();
    assert!(up.args(["link", "set", "eth0", "up"]).status().unwrap().success());
    lab.node(1).wait_route(START, "learned again", |route| route.net == net).unwrap();
}

#[test]
#[ignore = "needs root"]
fn bird_that_falls_silent_is_noticed() {
    a_silent_router_is_noticed(Make::Bird);
}

#[test]
#[ignore = "needs root"]
fn frr_that_falls_silent_is_noticed() {
    a_silent_router_is_noticed(Make::Frr);
}
