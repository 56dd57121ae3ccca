//! `calicoctl node status`: asks the node on this host for its state and shows it as upstream's program does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::Value;
use tortie_cni::wire::Operation;
use tortie_net::Family;

use crate::ask::ask;
use crate::cli::StatusFormat;
use crate::print::{Align, BoxTable};
use crate::session::Session;

/// What of the node's state is shown.
#[derive(Clone, Debug, Default, Deserialize)]
struct State {
    #[serde(default)]
    bgp: Option<Bgp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Bgp {
    /// Whether the node speaks BGP.
    #[serde(default)]
    running: bool,
    /// What keeps it from listening.
    #[serde(default)]
    fault: Option<String>,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Clone, Debug, Deserialize)]
struct Peer {
    address: IpAddr,
    kind: String,
    state: String,
    /// Seconds since 1970.
    since: i64,
    info: String,
}

pub(crate) fn status(session: &mut Session<'_, '_>, format: StatusFormat) -> Result<()> {
    let state = state(session)?;
    match format {
        StatusFormat::Json => {
            let text = serde_json::to_string_pretty(&state)?;
            session.say(&format!("{text}\n"))
        }
        StatusFormat::Table => {
            let shown: State = serde_json::from_value(state).context("the node told its state in an unknown form")?;
            session.say(&render(&shown, Timestamp::now(), &TimeZone::system()))
        }
    }
}

/// The node's state. A node that does not run, or refuses, is an error.
pub(super) fn state(session: &Session<'_, '_>) -> Result<Value> {
    ask(session.io.env.get("TORTIE_STATE_DIR").map(PathBuf::from), Operation::NodeStatus, BTreeMap::new())
}

fn render(state: &State, now: Timestamp, zone: &TimeZone) -> String {
    let mut text = String::from("Calico process is running.\n");
    match &state.bgp {
        Some(bgp) if bgp.running || !bgp.peers.is_empty() => {
            if let Some(fault) = &bgp.fault {
                text.push_str(&format!("\nBGP: {fault}\n"));
            }
            for family in Family::ALL {
                text.push_str(&format!("\nIPv{} BGP status\n", family.version()));
                text.push_str(&peers(bgp, family, now, zone));
            }
        }
        Some(_) | None => text.push_str("\nThis node does not speak BGP.\n"),
    }
    text.push('\n');
    text
}

fn peers(bgp: &Bgp, family: Family, now: Timestamp, zone: &TimeZone) -> String {
    let mut of_family = bgp.peers.iter().filter(|peer| Family::of(peer.address) == family).peekable();
    if of_family.peek().is_none() {
        return format!("No IPv{} peers found.\n", family.version());
    }
    let headings = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"].map(|heading| (heading, Align::Left));
    let mut table = BoxTable::new(&headings);
    for Peer { address, kind, state, since, info } in of_family {
        let since = since_text(*since, now, zone);
        table.wrapped(vec![address.to_string(), kind.clone(), state.clone(), since, info.clone()]);
    }
    table.render()
}

/// As BIRD shows it: the time within the last day, the date before.
fn since_text(since: i64, now: Timestamp, zone: &TimeZone) -> String {
    let Ok(moment) = Timestamp::from_second(since) else { return "-".to_owned() };
    let recent = now.duration_since(moment).abs() < SignedDuration::from_hours(24);
    let format = if recent { "%H:%M:%S" } else { "%Y-%m-%d" };
    moment.to_zoned(zone.clone()).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_text_comes_out() {
        let since = |text: &str| text.parse::<Timestamp>().expect("a literal").as_second();
        let peer = |address: &str, state: &str, when: &str, info: &str| Peer {
            address: address.parse().expect("a literal"),
            kind: "node-to-node mesh".into(),
            state: state.into(),
            since: since(when),
            info: info.into(),
        };
        let bgp = Bgp {
            running: true,
            fault: None,
            peers: vec![
                peer("192.168.13.220", "start", "2023-09-25T08:57:08Z", "Active Socket: Connection refused"),
                peer("192.168.13.221", "up", "2023-09-21T01:00:00Z", "Established"),
                peer("192.168.13.222", "up", "2023-09-21T02:00:00Z", "Established"),
            ],
        };
        let now = "2023-09-25T09:00:00Z".parse().expect("a literal");
        let expected = "\
Calico process is running.

IPv4 BGP status
+----------------+-------------------+-------+------------+--------------------------------+
|  PEER ADDRESS  |     PEER TYPE     | STATE |   SINCE    |              INFO              |
+----------------+-------------------+-------+------------+--------------------------------+
| 192.168.13.220 | node-to-node mesh | start | 08:57:08   | Active Socket: Connection      |
|                |                   |       |            | refused                        |
| 192.168.13.221 | node-to-node mesh | up    | 2023-09-21 | Established                    |
| 192.168.13.222 | node-to-node mesh | up    | 2023-09-21 | Established                    |
+----------------+-------------------+-------+------------+--------------------------------+

IPv6 BGP status
No IPv6 peers found.

";
        assert_eq!(render(&State { bgp: Some(bgp) }, now, &TimeZone::UTC), expected);
        let silent = render(&State::default(), now, &TimeZone::UTC);
        assert_eq!(silent, "Calico process is running.\n\nThis node does not speak BGP.\n\n");
    }
}
