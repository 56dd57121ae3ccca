//! `tortie bgp`: the sessions of the node on this host, what each side tells, and why a session is not up.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use tortie_api::printable_lines;
use tortie_cni::wire::Operation;

use crate::ask::ask;

/// Arguments of `tortie bgp`.
#[derive(Debug, Args)]
pub struct BgpArgs {
    #[command(subcommand)]
    question: Question,
    /// How to print.
    #[arg(short, long, default_value = "text", global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// The sessions of this node
    Peers,
    /// What peers tell this node, and what they are told
    Routes {
        /// One peer alone: its address, or the name of its node or BGPPeer.
        peer: Option<String>,
    },
    /// Everything about one session, and if it is not up, why and what to look at
    #[command(after_help = "Example: tortie bgp explain 192.0.2.1")]
    Explain {
        /// The peer's address, or the name of its node or BGPPeer.
        peer: String,
    },
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Default, Deserialize)]
struct Bgp {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    fault: Option<String>,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    address: IpAddr,
    name: String,
    kind: String,
    state: String,
    info: String,
    asn: u32,
    external: bool,
    hold_secs: Option<u64>,
    families: Vec<String>,
    capabilities: Vec<String>,
    received: usize,
    filtered: usize,
    sent: usize,
    keeps_stale: bool,
    faulty_updates: u64,
    last_fault: Option<String>,
    reason: Option<Reason>,
    bfd: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Reason {
    code: String,
    what: String,
    hint: String,
}

#[derive(Debug, Default, Deserialize)]
struct Routes {
    received: Vec<Route>,
    sent: Vec<Route>,
    truncated: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    prefix: String,
    next_hop: Option<IpAddr>,
    as_path: String,
    local_pref: Option<u32>,
    communities: Vec<String>,
    marks: Vec<String>,
}

/// Asks the node and prints its answer.
///
/// # Errors
/// No node answers, or it has no such peer.
pub fn run(args: &BgpArgs, out: &mut dyn Write) -> Result<ExitCode> {
    let directory = || std::env::var_os("TORTIE_STATE_DIR").map(PathBuf::from);
    let mut state = ask(directory(), Operation::NodeStatus, BTreeMap::new())?;
    let shown = state.get_mut("bgp").map(Value::take).unwrap_or_default();
    let bgp: Bgp = serde_json::from_value(shown.clone()).context("the node told its state in an unknown form")?;
    let routes = |peer: &Peer| {
        ask(directory(), Operation::BgpRoutes, BTreeMap::from([("PEER".to_owned(), peer.address.to_string())]))
    };
    let json = args.output == Output::Json;
    match &args.question {
        Question::Peers if json => print(out, &shown)?,
        Question::Peers => out.write_all(printable_lines(&peers(&bgp)).as_bytes())?,
        Question::Routes { peer } => {
            let chosen = match peer {
                Some(word) => vec![find(&bgp, word)?],
                None => bgp.peers.iter().collect(),
            };
            let mut all = Vec::new();
            for peer in chosen {
                let told = routes(peer)?;
                if json {
                    all.push(json!({ "peer": peer.address, "routes": told }));
                } else {
                    let told: Option<Routes> = serde_json::from_value(told)?;
                    let text = routes_text(peer, &told.unwrap_or_default());
                    out.write_all(printable_lines(&text).as_bytes())?;
                }
            }
            if json {
                print(out, &Value::Array(all))?;
            }
        }
        Question::Explain { peer } => {
            let found = find(&bgp, peer)?;
            if json {
                let list = shown.get("peers").and_then(Value::as_array);
                let own = list.and_then(|list| list.iter().find(|one| one["address"] == json!(found.address)));
                print(out, own.unwrap_or(&Value::Null))?;
            } else {
                out.write_all(printable_lines(&explain(&bgp, found)).as_bytes())?;
            }
            return Ok(if found.state == "up" { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut dyn Write, value: &Value) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

fn find<'a>(bgp: &'a Bgp, word: &str) -> Result<&'a Peer> {
    let address = word.parse::<IpAddr>().ok();
    let found: Vec<&Peer> =
        bgp.peers.iter().filter(|peer| Some(peer.address) == address || peer.name == word).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let all: Vec<String> = bgp.peers.iter().map(|peer| peer.address.to_string()).collect();
            let near = all.iter().min_by_key(|other| strsim::damerau_levenshtein(other, word));
            let near = near.map_or_else(|| "this node has no peers".to_owned(), |near| format!("did you mean {near}?"));
            bail!("no BGP peer {word:?}: {near}")
        }
        many => {
            let all: Vec<String> = many.iter().map(|peer| peer.address.to_string()).collect();
            bail!("{word:?} is {} peers, choose one by its address: {}", many.len(), all.join(", "))
        }
    }
}

fn peers(bgp: &Bgp) -> String {
    let mut rows =
        vec![["PEER", "NAME", "AS", "TYPE", "STATE", "RECEIVED", "FILTERED", "SENT", "WHY"].map(str::to_owned)];
    for peer in &bgp.peers {
        let why =
            peer.reason.as_ref().map_or_else(|| "-".to_owned(), |reason| format!("{}: {}", reason.code, reason.what));
        rows.push([
            peer.address.to_string(),
            if peer.name.is_empty() { "-".to_owned() } else { peer.name.clone() },
            peer.asn.to_string(),
            peer.kind.clone(),
            peer.info.split(' ').next().unwrap_or_default().to_owned(),
            peer.received.to_string(),
            peer.filtered.to_string(),
            peer.sent.to_string(),
            why,
        ]);
    }
    head(bgp) + &table(&rows)
}

fn head(bgp: &Bgp) -> String {
    match (&bgp.fault, bgp.running) {
        (Some(fault), _) => format!("BGP: {fault}\n"),
        (None, false) => "This node does not speak BGP.\n".to_owned(),
        (None, true) => String::new(),
    }
}

fn routes_text(peer: &Peer, routes: &Routes) -> String {
    let Routes { received, sent, truncated } = routes;
    let mut text = String::new();
    for (direction, list) in [("received from", received), ("sent to", sent)] {
        text.push_str(&format!("{} {direction} {}\n", list.len(), peer.address));
        let mut rows = vec![["  PREFIX", "NEXT HOP", "AS PATH", "PREF", "COMMUNITIES", "MARKS"].map(str::to_owned)];
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        rows.extend(list.iter().map(|route| {
            let Route { prefix, next_hop, as_path, local_pref, communities, marks } = route;
            [
                format!("  {prefix}"),
                dash(next_hop.map(|hop| hop.to_string()).unwrap_or_default()),
                dash(as_path.clone()),
                dash(local_pref.map(|pref| pref.to_string()).unwrap_or_default()),
                dash(communities.join(" ")),
                dash(marks.join(",")),
            ]
        }));
        if rows.len() > 1 {
            text.push_str(&table(&rows));
        }
    }
    if *truncated {
        text.push_str("  (there are more)\n");
    }
    text
}

fn explain(bgp: &Bgp, peer: &Peer) -> String {
    let Peer {
        address,
        name,
        kind,
        state: _,
        info,
        asn,
        external,
        hold_secs,
        families,
        capabilities,
        received,
        filtered,
        sent,
        keeps_stale,
        faulty_updates,
        last_fault,
        reason,
        bfd,
    } = peer;
    let mut text = head(bgp);
    let side = if *external { "external" } else { "internal" };
    text.push_str(&format!("{address} ({name}), {kind}, AS {asn}, {side}\n  state: {info}\n"));
    if let Some(Reason { code, what, hint }) = reason {
        text.push_str(&format!("  why not up: {what} [{code}]\n  look at: {hint}\n"));
    }
    if let Some(secs) = hold_secs {
        text.push_str(&format!("  families: {}; hold time {secs} s\n", families.join(", ")));
        text.push_str(&format!("  both can: {}\n", capabilities.join(", ")));
    }
    text.push_str(&format!("  prefixes: {received} received, {filtered} kept out by filters, {sent} sent\n"));
    if *keeps_stale {
        text.push_str("  its routes of the last session are kept until it is back\n");
    }
    if let Some(fault) = last_fault {
        text.push_str(&format!("  {faulty_updates} malformed UPDATEs, the last: {fault}\n"));
    }
    if let Some(bfd) = bfd {
        text.push_str(&format!("  BFD: {bfd}\n"));
    }
    text
}

/// Columns as wide as their widest cell; the last one has no end.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bgp() -> Bgp {
        let state = json!({ "running": true, "fault": null, "peers": [{
            "address": "192.0.2.1", "name": "tor", "kind": "global", "state": "start", "since": 0,
            "info": "Active Socket: Connection refused", "asn": 65001, "external": true, "holdSecs": null,
            "families": [], "capabilities": [], "received": 0, "filtered": 0, "sent": 0, "keepsStale": false,
            "faultyUpdates": 0, "lastFault": null, "bfd": null,
            "reason": { "code": "refused", "what": "nobody listens", "hint": "is it running?" },
        }] });
        serde_json::from_value(state).expect("the node's form")
    }

    #[test]
    fn a_session_that_is_not_up_is_explained() {
        let bgp = bgp();
        let expected = "192.0.2.1 (tor), global, AS 65001, external\n  state: Active Socket: Connection refused\n  \
                        why not up: nobody listens [refused]\n  look at: is it running?\n  \
                        prefixes: 0 received, 0 kept out by filters, 0 sent\n";
        assert_eq!(explain(&bgp, find(&bgp, "tor").expect("there")), expected);
        assert!(peers(&bgp).ends_with("Active   0          0          0      refused: nobody listens\n"));
    }

    #[test]
    fn a_wrong_name_is_told_with_the_nearest() {
        let error = find(&bgp(), "192.0.2.11").expect_err("no such peer").to_string();
        assert_eq!(error, "no BGP peer \"192.0.2.11\": did you mean 192.0.2.1?");
    }

    #[test]
    fn routes_stand_in_columns() {
        let routes = json!({ "received": [{ "prefix": "10.0.0.0/26", "nextHop": "192.0.2.1", "asPath": "65001",
            "localPref": null, "med": null, "communities": ["1:2"], "marks": ["best"] }], "sent": [], "truncated": false });
        let routes: Routes = serde_json::from_value(routes).expect("the node's form");
        let expected = "1 received from 192.0.2.1\n  PREFIX        NEXT HOP    AS PATH   PREF   COMMUNITIES   MARKS\n  \
                        10.0.0.0/26   192.0.2.1   65001     -      1:2           best\n0 sent to 192.0.2.1\n";
        assert_eq!(routes_text(&bgp().peers[0], &routes), expected);
    }
}
