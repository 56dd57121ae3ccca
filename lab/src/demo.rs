//! `tortie demo`: three nodes, two pods each, and policies that close and open paths, checked step by step.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::lab::Lab;
use crate::matrix::Matrix;
use crate::place::Place;
use crate::pod::Pod;
use crate::probe::Probe;
use crate::topology::Store;

/// The id of the demo's lab.
const ID: &str = "demo";
/// How long anything that the demo waits for may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a written policy may take until packets show it, as a lab sees it.
const SETTLE: Duration = Duration::from_secs(30);
/// What the matrix asks with.
const PORT: u16 = 9000;

/// Lets pods with the label talk to everything and everything to them.
const ALLOW: &str = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: net1
spec:
  order: 100
  selector: role == 'net1'
  types: [Ingress, Egress]
  ingress:
  - action: Allow
  egress:
  - action: Allow
";

/// Closes one path.
const DENY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: close-a1-to-b1
  namespace: default
spec:
  order: 10
  selector: app == 'b1'
  types: [Ingress]
  ingress:
  - action: Deny
    source:
      selector: app == 'a1'
";

/// Three nodes on this machine: routes over BGP, and policies that close and open paths.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the lab up and say how to use it.
    #[arg(long)]
    keep: bool,
}

/// Runs `tortie demo`. Success means that every step did what it should.
pub fn demo(args: DemoArgs) -> Result<ExitCode> {
    let DemoArgs { keep } = args;
    let begun = Instant::now();
    let mut lab =
        Lab::builder().store(Store::Sqlite).id(ID).nodes(3).subnet("172.17.8.0/24").pool("192.168.0.0/16").up()?;
    let demo = Demo { lab: &lab, begun };
    demo.run()?;
    demo.step("Done: every path was as it should be");
    if keep {
        lab.keep()?;
        println!("\nThe lab stays. Try:");
        println!("    tortie lab exec --id {ID} node1 -- calicoctl get nodes");
        println!("    tortie lab exec --id {ID} node1 -- calicoctl get workloadendpoints -A");
        println!("    tortie lab matrix --id {ID} --protocol icmp");
        println!("    tortie lab down --id {ID}");
    } else {
        lab.down()?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Demo<'a> {
    lab: &'a Lab,
    begun: Instant,
}

impl Demo<'_> {
    fn step(&self, text: &str) {
        println!("\n[{:5.2} s] {text}", self.begun.elapsed().as_secs_f64());
    }

    fn run(&self) -> Result<()> {
        self.step(
            "Three nodes, each a network namespace with a `tortie node` of its own; the store is one SQLite file",
        );
        self.lab.start(PATIENCE)?;
        for node in self.lab.nodes() {
            println!("    {} at {}: in sync", node.name(), node.ip());
        }
        self.step("Two pods on each node, added through the CNI plugin");
        let pods = self.add_pods()?;
        self.step("Routes of node1: the other nodes' blocks over BGP, its own block as a blackhole, its pods");
        self.lab.wait_routes(PATIENCE)?;
        println!("{}", indent(&self.lab.node(1).ip_route(false)?));
        self.step("BGP sessions of node1 (calicoctl node status)");
        println!("{}", indent(&self.bgp_status()?));
        let places: Vec<Place> = pods.iter().map(Pod::place).collect();
        self.step("No profile and no policy: nothing passes (rows send, columns receive)");
        self.expect(&places, |_, _| false)?;
        self.step("A policy that lets pods with role=net1 talk (calicoctl apply)");
        println!("{}", indent(self.lab.apply(ALLOW)?.trim_end()));
        self.expect(&places, |_, _| true)?;
        self.step("A policy before it that closes the path from a1 to b1");
        println!("{}", indent(self.lab.apply(DENY)?.trim_end()));
        self.expect(&places, |from, to| (from, to) != ("default/a1", "default/b1"))
    }

    fn add_pods(&self) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for (node, letter) in self.lab.nodes().iter().zip(["a", "b", "c"]) {
            for number in 1..=2 {
                let name = format!("{letter}{number}");
                let pod = node.add_pod("default", &name, &[("role", "net1"), ("app", &name)])?;
                println!("    {} on {}: {}", pod.title(), node.name(), pod.ip());
                pods.push(pod);
            }
        }
        Ok(pods)
    }

    /// The table, once both sessions of node1 are established.
    fn bgp_status(&self) -> Result<String> {
        let mut last = String::new();
        let table = crate::node::wait(PATIENCE, || {
            last = self.lab.ctl(&["node", "status"], "").unwrap_or_else(|error| format!("{error:#}"));
            (last.matches("Established").count() == 2).then(|| last.clone())
        });
        table.with_context(|| format!("node1 has not both sessions established; its status:\n{last}"))
    }

    /// Measures until the matrix is as wanted, prints it, and fails if it does not become so.
    fn expect(&self, places: &[Place], wanted: impl Fn(&str, &str) -> bool) -> Result<()> {
        let settled = |probe: &Probe| -> Result<Matrix> {
            let begun = Instant::now();
            loop {
                let matrix = Matrix::measure(places, probe)?;
                if matrix.differences(&wanted).is_empty() || begun.elapsed() > SETTLE {
                    return Ok(matrix);
                }
            }
        };
        let matrix = settled(&Probe::tcp(PORT))?;
        println!("{}", indent(&matrix.to_string()));
        // The policies name no protocol, so every protocol must agree.
        matrix.expect(&wanted)?;
        for probe in [Probe::udp(PORT), Probe::icmp()] {
            settled(&probe)?.expect(&wanted)?;
        }
        let (open, all) = (matrix.open_count(), matrix.paths.len());
        println!("    {open} of {all} paths are open, by tcp, udp and icmp, as expected");
        Ok(())
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_is_set_in() {
        assert_eq!(super::indent("a\nb\n"), "    a\n    b");
    }
}
