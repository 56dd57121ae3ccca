//! The node's speaker as a program of its own: the thread that the node runs, with its sockets, in one heap as there, and
//! nothing else.
//!
//! It prints `holds` once it holds as many learned routes as are expected, `watched` once BFD sees all peers that it is to
//! watch, and `lost` when no route is left; it goes on until it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tortie_desired::{BgpBfd, BgpPeer, BgpPolicy, BgpSpeaker, ExportRule, PeerOrigin};
use tortie_net::AsNumber;
use tortie_netlink::Netns;
use tortie_node::{Bgp, BgpSecrets, BgpTold, BgpWanted};

use super::{AS, Neighbour};
use crate::bed::Running;

/// Name of the program.
pub const PROGRAM: &str = "node-speaker";

/// A running one.
pub struct Node {
    /// Its process.
    pub process: Running,
    told: Receiver<(String, Instant)>,
}

impl Node {
    /// Starts it with routes of its own and iBGP neighbours.
    pub fn start(
        netns: &Netns,
        own: Ipv4Addr,
        neighbours: &[Neighbour],
        routes: impl Iterator<Item = IpNet>,
        expect: usize,
    ) -> Result<Node> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(PROGRAM).arg(own.to_string()).arg(expect.to_string());
        command.args(routes.map(|route| route.to_string()));
        for Neighbour { address, client, passive, bfd } in neighbours {
            command.arg(format!("{address} {client} {passive} {bfd}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = netns.run(|| command.spawn())?.context("can't start the speaker")?;
        let output = child.stdout.take().context("a piped output")?;
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(output));
            lines.map_while(Result::ok).all(|line| tell.send((line, Instant::now())).is_ok())
        });
        Ok(Node { process: Running::of(child), told })
    }

    /// Whether it has come to hold what is expected since this was asked last.
    pub fn holds(&self) -> bool {
        self.told.try_recv().is_ok_and(|(line, _)| line == "holds")
    }

    /// When it says this word.
    pub fn says(&self, word: &str, patience: Duration) -> Result<Instant> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left);
            let (line, at) = told.with_context(|| format!("the speaker does not say {word:?}"))?;
            if line == word {
                return Ok(at);
            }
        }
    }
}

/// The program: own address, how many routes to expect, then blocks to originate and neighbours, as `Node::start` has
/// them.
pub fn program(args: &[String]) -> Result<()> {
    tortie_node::one_heap();
    let [own, expect, rest @ ..] = args else { bail!("expected OWN EXPECT (BLOCK | NEIGHBOUR)...") };
    let own: Ipv4Addr = own.parse()?;
    let expect: usize = expect.parse()?;
    let mut announcements = BTreeSet::new();
    let mut peers = BTreeMap::new();
    for word in rest {
        match word.split(' ').collect::<Vec<_>>()[..] {
            [block] => drop(announcements.insert(block.parse::<IpNet>()?)),
            [address, client, passive, bfd] => {
                let address: IpAddr = address.parse()?;
                let cluster = client.parse::<bool>()?.then_some(own);
                let peer = BgpPeer::new(AsNumber(AS), 179, PeerOrigin::Mesh, address.to_string().into());
                let source = Some(own.into());
                let bfd = bfd.parse::<bool>()?.then_some(BgpBfd { interval_ms: 50, multiplier: 3 });
                peers.insert(address, BgpPeer { cluster, passive: passive.parse()?, source, bfd, ..peer });
            }
            _ => bail!("{word:?} is neither a block nor a neighbour"),
        }
    }
    let (tell, learned) = channel();
    let bgp = Bgp::start(false, BgpSecrets::None, move |told| {
        if let BgpTold::Routes(changes) = told {
            let _ = tell.send(changes);
        }
    })?;
    let watches = peers.values().any(|peer| peer.bfd.is_some());
    let everywhere = IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).context("a length")?;
    bgp.want(BgpWanted {
        speaker: Some(BgpSpeaker {
            router_id: own,
            asn: AsNumber(AS),
            listen_port: 179,
            ipv4: Some(own.into()),
            ipv6: None,
        }),
        peers,
        policy: BgpPolicy { export: vec![ExportRule::Tell(everywhere)], ..BgpPolicy::default() },
        announcements,
    });
    let (mut held, mut told) = (BTreeSet::new(), false);
    for changes in learned {
        for (prefix, hops) in changes {
            if hops.is_some() {
                held.insert(prefix)
            } else {
                held.remove(&prefix)
            };
        }
        // Whoever reads that has gone afterwards.
        if !told && held.len() == expect {
            println!("holds");
            told = true;
            while watches
                && bgp.status().peers.iter().any(|peer| peer.bfd.as_deref().is_some_and(|state| state != "Up"))
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            println!("watched");
        }
        if told && held.is_empty() {
            println!("lost");
        }
    }
    Ok(())
}
