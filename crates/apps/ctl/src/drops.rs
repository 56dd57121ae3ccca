//! `tortie drops`: packets that ended on this host's node, and why.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tortie_api::printable;
use tortie_cni::wire::Operation;
use tortie_flow::{Counts, Record};

use crate::ask::ask;

/// How often a node is asked for more.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `tortie drops`.
#[derive(Debug, Args)]
#[command(after_help = "Example: tortie drops --follow --endpoint shop/web")]
pub struct DropsArgs {
    /// Go on with what comes, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only what ended within this time before now, such as `90s`, `5m` or `2h`.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    since: Option<Duration>,
    /// Only what concerns an endpoint: as sender, receiver, or by its rules. `namespace/name`, a part of it, or the
    /// name of a host endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// How to print.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line each, for people.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
}

fn duration(text: &str) -> Result<Duration> {
    let unit = text.chars().last().unwrap_or_default();
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => bail!("expected a number and s, m or h, such as 90s"),
    };
    let number: u64 = text[..text.len() - 1].parse().context("expected a number and s, m or h, such as 90s")?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[derive(Debug, Default, Deserialize)]
struct Answer {
    records: Vec<Record>,
    counts: Counts,
}

/// Asks the node and prints what it tells.
///
/// # Errors
/// No node answers, or nobody reads the output.
pub fn run(args: &DropsArgs, out: &mut dyn Write) -> Result<ExitCode> {
    let directory = || std::env::var_os("TORTIE_STATE_DIR").map(PathBuf::from);
    let since = args.since.map(|since| SignedDuration::try_from(since).unwrap_or(SignedDuration::MAX));
    let from = since.map_or(Timestamp::MIN, |since| Timestamp::now().checked_sub(since).unwrap_or(Timestamp::MIN));
    let mut after = 0;
    let mut table = (args.output == Output::Table).then(Table::default);
    loop {
        let question = BTreeMap::from([("AFTER".to_owned(), after.to_string())]);
        let told = ask(directory(), Operation::Drops, question)?;
        let Answer { records, counts } =
            serde_json::from_value(told).context("the node told its drops in an unknown form")?;
        if counts.recorded.values().sum::<u64>() < after {
            // A node that was started again counts from the start.
            after = 0;
            continue;
        }
        let Some(last) = records.last().map(|record| record.number) else {
            if let Some(table) = &mut table {
                table.write(&[], out)?;
            }
            if !args.follow {
                if table.is_some() {
                    out.write_all(numbers(&counts).as_bytes())?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            out.flush()?;
            std::thread::sleep(ASK_EVERY);
            continue;
        };
        after = last;
        let asked_for = |record: &&Record| time(record) >= from && concerns(record, args.endpoint.as_deref());
        let shown: Vec<&Record> = records.iter().filter(asked_for).collect();
        match &mut table {
            Some(table) => table.write(&shown, out)?,
            None => {
                for record in shown {
                    writeln!(out, "{}", serde_json::to_string(record)?)?;
                }
            }
        }
    }
}

/// Records as they come, in columns that grow with what was seen.
#[derive(Default)]
struct Table {
    flow: Option<usize>,
}

impl Table {
    /// Writes records, before the first of them the heads of the columns.
    fn write(&mut self, records: &[&Record], out: &mut dyn Write) -> std::io::Result<()> {
        let rows: Vec<[String; 3]> = records.iter().map(|record| row(record)).collect();
        let longest = rows.iter().map(|[_, flow, _]| flow.chars().count()).max().unwrap_or(0);
        let width = longest.max(self.flow.unwrap_or(0));
        if self.flow.replace(width).is_none() {
            writeln!(out, "{:<12}   {:<width$}   ENDPOINT, WHY", "TIME", "FLOW")?;
        }
        rows.iter().try_for_each(|[time, flow, why]| writeln!(out, "{time}   {flow:<width$}   {why}"))
    }
}

fn time(record: &Record) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(record.time_ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}

fn concerns(record: &Record, endpoint: Option<&str>) -> bool {
    let Some(wanted) = endpoint else { return true };
    let names = [&record.endpoint, &record.source_endpoint, &record.destination_endpoint];
    names.into_iter().flatten().any(|name| name.contains(wanted))
}

/// Time, flow, endpoint with the cause.
fn row(record: &Record) -> [String; 3] {
    let shown = time(record).to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
    let endpoint = record.endpoint.as_deref().unwrap_or_else(|| {
        let interface = if record.direction == "ingress" { &record.output } else { &record.input };
        interface.as_deref().unwrap_or("-")
    });
    let why = format!("{} {endpoint}: {}", record.direction, why(record));
    [shown, printable(&flow(record)).into_owned(), printable(&why).into_owned()]
}

fn flow(record: &Record) -> String {
    let end = |address: Option<std::net::IpAddr>, port: Option<u16>, name: &Option<String>| {
        let address = match (address, port) {
            (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
            (Some(address), None) => address.to_string(),
            (None, _) => "?".to_owned(),
        };
        match name {
            Some(name) => format!("{address} ({name})"),
            None => address,
        }
    };
    let icmp = record.icmp_type.zip(record.icmp_code).map(|(kind, code)| format!(" type {kind} code {code}"));
    format!(
        "{}{} {} -> {}",
        record.protocol.as_deref().unwrap_or("?"),
        icmp.unwrap_or_default(),
        end(record.source, record.source_port, &record.source_endpoint),
        end(record.destination, record.destination_port, &record.destination_endpoint)
    )
}

fn why(record: &Record) -> String {
    let owner = match (&record.policy, &record.profile) {
        (Some(policy), _) => format!("policy {policy}"),
        (None, Some(profile)) => format!("profile {profile}"),
        (None, None) => String::new(),
    };
    let tier = record.tier.as_ref().map(|tier| format!(" of tier {tier}")).unwrap_or_default();
    let asked = if record.asked.is_empty() { String::new() } else { format!(" ({})", record.asked.join(", ")) };
    match record.cause.as_str() {
        "rule" => format!("rule {} of {owner}{tier}", record.rule.unwrap_or_default()),
        "missing" => format!("{owner}{tier} is not there"),
        "end-of-tier" => format!("no rule{tier} matched{asked}"),
        "nothing-matched" => format!("no policy or profile decided{asked}"),
        "revoked" => "policy has come to deny this flow".to_owned(),
        "spoofed" => "the source is none of its addresses".to_owned(),
        "invalid" => "invalid in connection tracking".to_owned(),
        "ipv6-off" => "IPv6 is off".to_owned(),
        "unknown-interface" => "the interface belongs to no endpoint".to_owned(),
        "vxlan" => "VXLAN of its own".to_owned(),
        "ipip" => "IPIP of its own".to_owned(),
        "to-host" => "workloads may not speak to their node".to_owned(),
        "packet-rate" => "above its rate of packets".to_owned(),
        "connections" => "above its number of connections".to_owned(),
        "service-loop" => "nobody translated this service address".to_owned(),
        "foreign-tunnel" => "a tunnel packet of a stranger".to_owned(),
        other => other.to_owned(),
    }
}

fn numbers(counts: &Counts) -> String {
    let Counts { recorded, suppressed, lost } = counts;
    let sum = |numbers: &BTreeMap<String, u64>| numbers.values().sum::<u64>();
    let mut text = format!(
        "{} recorded since the node started, {} above the rate of records, {lost} lost\n",
        sum(recorded),
        sum(suppressed)
    );
    for (cause, packets) in suppressed {
        text.push_str(&format!("  not recorded: {packets} of {cause}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use tortie_ruleset::Beside;

    use super::*;

    #[test]
    fn a_record_is_one_line_that_says_who_and_why() {
        let record = Record {
            cause: "end-of-tier".to_owned(),
            direction: "ingress".to_owned(),
            endpoint: Some("shop/web".to_owned()),
            tier: Some("default".to_owned()),
            asked: vec!["np/shop/a".to_owned()],
            protocol: Some("TCP".to_owned()),
            source: Some("10.0.0.1".parse().expect("literal")),
            source_port: Some(4000),
            destination: Some("10.0.0.2".parse().expect("literal")),
            destination_port: Some(80),
            destination_endpoint: Some("shop/web".to_owned()),
            ..Record::default()
        };
        let [_, flow, why_not] = row(&record);
        assert_eq!(flow, "TCP 10.0.0.1:4000 -> 10.0.0.2:80 (shop/web)");
        assert_eq!(why_not, "ingress shop/web: no rule of tier default matched (np/shop/a)");
        assert!(concerns(&record, Some("web")) && !concerns(&record, Some("db")));
        let steering = Record { destination_endpoint: Some("a\u{1b}[2J".into()), ..record.clone() };
        assert!(row(&steering)[1].ends_with("(a\\u{1b}[2J)"));
        let rule = Record { cause: "rule".into(), policy: Some("gnp/x".into()), rule: Some(2), ..record };
        assert_eq!(why(&rule), "rule 2 of policy gnp/x of tier default");
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let record = |name: &str| Record {
            source_endpoint: Some(name.to_owned()),
            endpoint: Some("x".to_owned()),
            direction: "egress".to_owned(),
            ..Record::default()
        };
        let (short, long) = (record("shop/web"), record("shop/a-name-that-is-longer"));
        let (mut table, mut out) = (Table::default(), Vec::new());
        table.write(&[&short, &long], &mut out).expect("written");
        table.write(&[&short], &mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("ENDPOINT, WHY").expect("a head");
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1..].iter().all(|line| line.find("egress x") == Some(column)), "{text}");
    }

    #[test]
    fn every_check_has_words() {
        for check in Beside::ALL {
            let record = Record { cause: check.word().to_owned(), ..Record::default() };
            assert_ne!(why(&record), check.word());
        }
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s").expect("fine"), Duration::from_secs(90));
        assert_eq!(duration("2h").expect("fine"), Duration::from_secs(7200));
        for wrong in ["", "5", "xm", "-1s", "5d", "ü"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
