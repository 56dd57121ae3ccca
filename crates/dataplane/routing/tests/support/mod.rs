//! What the lab tests share: literals, and the tools of the host in a namespace.

use std::net::IpAddr;
use std::process::Command;

use ipnet::IpNet;
use tortie_netlink::Netns;

/// A prefix that is written in the test.
pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// An address that is written in the test.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a command line in a namespace and returns what it printed; panics with its words if it fails.
pub fn command(netns: &Netns, line: &str) -> String {
    let mut words = line.split(' ');
    let output = netns.run(|| Command::new(words.next().unwrap()).args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
