//! Real routers in the lab: BIRD 2, FRR and GoBGP, each asked in its own way for what it holds.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tortie_lab::{Daemon, Lab, wait};

/// Longest wait for a session or a route.
pub const START: Duration = Duration::from_secs(60);

/// Pods take everything from everybody.
pub const OPEN: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: open}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
";

/// Where Debian keeps FRR's daemons.
pub const FRR: &str = "/usr/lib/frr";

/// Which router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Bird,
    Frr,
    GoBgp,
}

impl Make {
    /// A real peer is worth a skip, said out loud, where it is not installed.
    pub fn installed(self) -> bool {
        let there = match self {
            Make::Bird => Command::new("bird").arg("--version").output().is_ok(),
            Make::Frr => PathBuf::from(FRR).join("bgpd").exists(),
            Make::GoBgp => Command::new("gobgpd").arg("--version").output().is_ok(),
        };
        if !there {
            println!("skipped: {self:?} is not installed");
        }
        there
    }
}

/// A route as a router holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub as_path: Vec<u32>,
    pub communities: BTreeSet<String>,
    pub next_hop: String,
}

/// A running router.
pub struct Router<'a> {
    lab: &'a Lab,
    machine: String,
    make: Make,
    folder: PathBuf,
    _daemons: Vec<Daemon>,
}

impl<'a> Router<'a> {
    /// Starts a router with a configuration in its own language.
    pub fn start(lab: &'a Lab, machine: &str, make: Make, config: &str) -> Router<'a> {
        let folder = lab.folder(machine).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let daemons = match make {
            Make::Bird => {
                let config = file("bird.conf", config);
                vec![lab.spawn(machine, "bird", &["-f", "-c", &config, "-s", &path("bird.ctl")]).unwrap()]
            }
            Make::GoBgp => {
                let config = file("gobgpd.conf", config);
                vec![lab.spawn(machine, "gobgpd", &["-f", &config, "--api-hosts", "127.0.0.1:50051"]).unwrap()]
            }
            Make::Frr => {
                let config = file("frr.conf", config);
                let vty = path("vty");
                std::fs::create_dir_all(&vty).unwrap();
                // The daemons run as a user of their own.
                for path in [&folder, &folder.join("vty")] {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
                }
                let mut all = Vec::new();
                for name in ["zebra", "bgpd", "bfdd"] {
                    let (program, pid) = (format!("{FRR}/{name}"), path(&format!("{name}.pid")));
                    let zserv = path("zserv.api");
                    let mut args = vec!["-f", &config, "-i", &pid, "-z", &zserv, "--vty_socket", &vty];
                    args.extend(["--log", "stdout"]);
                    let control = path("bfdd.ctl");
                    if name == "bfdd" {
                        args.extend(["--bfdctl", &control]);
                    }
                    all.push(lab.spawn(machine, &program, &args).unwrap());
                    // The others connect to zebra's socket at once.
                    if name == "zebra" {
                        assert!(
                            wait(START, || folder.join("zserv.api").exists().then_some(())).is_some(),
                            "zebra starts"
                        );
                    }
                }
                all
            }
        };
        Router { lab, machine: machine.to_owned(), make, folder, _daemons: daemons }
    }

    /// Asks the router in its own language.
    pub fn ask(&self, words: &str) -> String {
        let path = |name: &str| self.folder.join(name).to_str().unwrap().to_owned();
        let (program, mut args) = match self.make {
            Make::Bird => ("birdc", vec!["-s".to_owned(), path("bird.ctl")]),
            Make::Frr => ("vtysh", vec!["--vty_socket".to_owned(), path("vty"), "-c".to_owned()]),
            Make::GoBgp => ("gobgp", Vec::new()),
        };
        match self.make {
            Make::Frr => args.push(words.to_owned()),
            Make::Bird | Make::GoBgp => args.extend(words.split(' ').map(str::to_owned)),
        }
        let output =
            self.lab.view(&self.machine).unwrap().command(program, false).unwrap().args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// How the router sees its sessions, for who looks for what went wrong.
    pub fn sessions(&self) -> String {
        self.ask(match self.make {
            Make::Bird => "show protocols all",
            Make::Frr => "show bgp neighbors",
            Make::GoBgp => "neighbor",
        })
    }

    /// What the router holds from its neighbours, by prefix.
    pub fn holds(&self) -> BTreeMap<String, Held> {
        match self.make {
            Make::Bird => bird(&self.ask("show route all where source=RTS_BGP")),
            Make::Frr => {
                let mut all = BTreeMap::new();
                for family in ["ipv4", "ipv6"] {
                    let list = self.ask(&format!("show bgp {family} unicast json"));
                    let list: Value = serde_json::from_str(&list).unwrap_or_default();
                    let prefixes = list["routes"].as_object().cloned().unwrap_or_default();
                    for prefix in prefixes.keys() {
                        let one = self.ask(&format!("show bgp {family} unicast {prefix} json"));
                        all.extend(frr(prefix, &serde_json::from_str(&one).unwrap_or_default()));
                    }
                }
                all
            }
            Make::GoBgp => {
                let mut all = BTreeMap::new();
                for family in ["ipv4", "ipv6"] {
                    let list = self.ask(&format!("global rib -a {family} -j"));
                    let list: Value = serde_json::from_str(&list).unwrap_or_default();
                    all.extend(list.as_object().into_iter().flatten().filter_map(|(net, paths)| gobgp(net, paths)));
                }
                all
            }
        }
    }
}

/// `show route all` of BIRD: a line for the route, indented ones for its attributes.
fn bird(text: &str) -> BTreeMap<String, Held> {
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.first() else { continue };
        if first.contains('/') && !line.starts_with([' ', '\t']) {
            last = (*first).to_owned();
            all.entry(last.clone()).or_default();
        }
        let Some(held) = all.get_mut(&last) else { continue };
        match *first {
            "BGP.as_path:" => held.as_path = words[1..].iter().filter_map(|word| word.parse().ok()).collect(),
            "BGP.next_hop:" => held.next_hop = words[1].to_owned(),
            "BGP.community:" | "BGP.large_community:" => {
                let joined = words[1..].join(" ").replace(", ", ":").replace(',', ":");
                held.communities
                    .extend(joined.split(['(', ')', ' ']).filter(|word| !word.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    all
}

fn frr(prefix: &str, value: &Value) -> Option<(String, Held)> {
    let path = value["paths"].as_array()?.iter().find(|path| path["peer"]["peerId"] != "0.0.0.0")?;
    if path["sourced"] == Value::Bool(true) {
        return None;
    }
    let words = |text: &Value| text.as_str().unwrap_or_default().split(' ').map(str::to_owned).collect::<Vec<_>>();
    let lists = [words(&path["community"]["string"]), words(&path["largeCommunity"]["string"])].concat();
    let held = Held {
        as_path: words(&path["aspath"]["string"]).iter().filter_map(|word| word.parse().ok()).collect(),
        communities: lists.into_iter().filter(|word| !word.is_empty()).collect(),
        next_hop: path["nexthops"][0]["ip"].as_str().unwrap_or_default().to_owned(),
    };
    Some((prefix.to_owned(), held))
}

fn gobgp(prefix: &str, paths: &Value) -> Option<(String, Held)> {
    let path = paths.as_array()?.first()?;
    let mut held = Held::default();
    for attribute in path["attrs"].as_array()? {
        match attribute["type"].as_u64()? {
            2 => {
                let segments = attribute["as_paths"].as_array().cloned().unwrap_or_default();
                let members =
                    segments.iter().flat_map(|segment| segment["asns"].as_array().cloned().unwrap_or_default());
                held.as_path = members.filter_map(|member| u32::try_from(member.as_u64()?).ok()).collect();
            }
            3 | 14 => held.next_hop = attribute["nexthop"].as_str().unwrap_or_default().to_owned(),
            8 => {
                let list = attribute["communities"].as_array().cloned().unwrap_or_default();
                let text = |value: u64| format!("{}:{}", value >> 16, value & 0xffff);
                held.communities.extend(list.iter().filter_map(Value::as_u64).map(text));
            }
            32 => {
                for one in attribute["value"].as_array().cloned().unwrap_or_default() {
                    let part = |name: &str| one[name].as_u64().unwrap_or_default();
                    held.communities.insert(format!("{}:{}:{}", part("ASN"), part("LocalData1"), part("LocalData2")));
                }
            }
            _ => {}
        }
    }
    // Its own lead nowhere.
    (!["0.0.0.0", "::"].contains(&held.next_hop.as_str())).then(|| (prefix.to_owned(), held))
}

/// Waits until a test passes; fails with what it said last.
pub fn until(what: &str, test: impl FnMut() -> Result<(), String>) {
    let done = within(START, test);
    assert!(done.is_ok(), "{what}: {}", done.unwrap_err());
}

/// Waits for so long until a test passes; what it said last if it does not.
pub fn within(time: Duration, mut test: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut last = String::new();
    wait(time, || test().map_err(|why| last = why).ok()).ok_or(last)
}

/// Asks a node by `tortie bgp`.
pub fn tortie_bgp(lab: &Lab, node: usize, args: &[&str]) -> String {
    let output = lab.node(node).command("tortie").unwrap().arg("bgp").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The same as JSON.
pub fn tortie_bgp_json(lab: &Lab, node: usize, args: &[&str]) -> Value {
    serde_json::from_str(&tortie_bgp(lab, node, &[args, &["--output", "json"]].concat())).unwrap_or_default()
}

/// When a node's session with a peer came up, seconds since 1970.
pub fn up_since(lab: &Lab, node: usize, peer: &str) -> i64 {
    let state = tortie_bgp_json(lab, node, &["peers"]);
    let mut peers = state["peers"].as_array().into_iter().flatten();
    let found = peers.find(|one| one["address"] == peer).and_then(|one| one["since"].as_i64());
    found.unwrap_or_else(|| panic!("no session with {peer}: {state}"))
}
