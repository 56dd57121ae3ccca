//! `calicoctl node diags` and `calicoctl cluster diags`.

use std::path::Path;

use anyhow::{Result, bail};
use jiff::Zoned;
use tortie_api::{GoDuration, Kind, Resource, to_yaml};
use tortie_facts::Filter;
use tortie_store::Store;

use super::bundle::{Bundle, must_be_root};
use super::{ipam, node_status};
use crate::cli::ClusterDiags;
use crate::session::Session;

/// What is said, what is run, and the file that its output goes to.
const QUESTIONS: [(&str, &str, &str); 16] = [
    ("", "date", "date"),
    ("", "hostname", "hostname"),
    ("Dumping netstat", "ss -a -n", "ss"),
    ("Dumping routes (IPv4)", "ip -4 route show table all", "ipv4_route"),
    ("Dumping routes (IPv6)", "ip -6 route show table all", "ipv6_route"),
    ("Dumping rules (IPv4)", "ip -4 rule", "ipv4_rule"),
    ("Dumping rules (IPv6)", "ip -6 rule", "ipv6_rule"),
    ("Dumping interface info (IPv4)", "ip -4 addr", "ipv4_addr"),
    ("Dumping interface info (IPv6)", "ip -6 addr", "ipv6_addr"),
    ("Dumping links", "ip -d link", "links"),
    ("Dumping neighbours", "ip neigh", "neighbours"),
    ("Dumping nftables", "nft -n -a list ruleset", "nft_ruleset"),
    ("Dumping iptables (IPv4)", "iptables-save -c", "ipv4_tables"),
    ("Dumping iptables (IPv6)", "ip6tables-save -c", "ipv6_tables"),
    ("Dumping ipsets", "ipset list", "ipsets"),
    (
        "Copying journal for calico-node.service",
        "journalctl -u calico-node.service --no-pager",
        "journalctl_calico_node",
    ),
];

/// Kinds that hold no secret and that a look at a cluster needs. Secrets are in none of them: passwords are named, not
/// kept.
const KINDS: [Kind; 20] = [
    Kind::BgpConfiguration,
    Kind::BgpFilter,
    Kind::BgpPeer,
    Kind::CalicoNodeStatus,
    Kind::ClusterInformation,
    Kind::FelixConfiguration,
    Kind::GlobalNetworkPolicy,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::IpPool,
    Kind::IpReservation,
    Kind::IpamConfiguration,
    Kind::KubeControllersConfiguration,
    Kind::NetworkPolicy,
    Kind::NetworkSet,
    Kind::Node,
    Kind::Profile,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::Tier,
];

pub(crate) fn node(session: &mut Session<'_, '_>, log_dir: &str) -> Result<()> {
    must_be_root()?;
    let bundle = Bundle::new("diagnostics")?;
    session.say(&format!("Collecting diagnostics\nUsing temp dir: {}\n", bundle.place().display()))?;
    for (say, run, file) in QUESTIONS {
        if !say.is_empty() {
            session.say(&format!("{say}\n"))?;
        }
        if let Err(reason) = bundle.ask(file, run) {
            session.say(&format!("Failed to run command: {run}\nError: {reason}\n"))?;
        }
    }
    session.say("Dumping the node's state\n")?;
    match node_status::state(session) {
        Ok(state) => bundle.keep("node_state.json", &serde_json::to_string_pretty(&state)?)?,
        Err(error) => session.say(&format!("Failed to ask the node: {error:#}\n"))?,
    }
    if Path::new(log_dir).is_dir() {
        session.say("Copying Calico logs\n")?;
        if let Err(error) = bundle.copy(Path::new(log_dir), "logs") {
            session.say(&format!("Error copying log files: {error:#}\n"))?;
        }
    } else {
        session.say(&format!("No logs found in {log_dir}; skipping log copying\n"))?;
    }
    let archive = bundle.pack(&format!("diags-{}.tar.gz", Zoned::now().strftime("%Y%m%d_%H%M%S")))?;
    bundle.forget();
    session.say(&format!(
        "\nDiags saved to {}\nIf required, you can upload the diagnostics bundle to a file sharing service.\n",
        archive.display()
    ))
}

pub(crate) fn cluster(session: &mut Session<'_, '_>, what: &ClusterDiags) -> Result<()> {
    // The other flags bound what is taken of a Kubernetes cluster's logs, which are kubectl's to collect.
    let ClusterDiags { since, max_logs: _, max_parallelism: _, focus_nodes: _, skip_temp_dir_cleanup } = what;
    if since.parse::<GoDuration>().is_err() {
        bail!("invalid argument {since:?} for \"--since\": expected a time such as 90m");
    }
    session.say("==== Begin collecting diagnostics. ====\n")?;
    let store = session.open()?;
    let name = format!("calico-diagnostics-{}", jiff::Timestamp::now().strftime("%Y%m%d_%H%M%S"));
    let bundle = Bundle::new(&name)?;
    session.say(&format!("Created temporary directory: {}\n", bundle.place().display()))?;
    for kind in KINDS {
        session.say(&format!("Collecting {}...\n", kind.plural()))?;
        match listed(&*store, kind) {
            Ok(text) => bundle.keep(&format!("cluster/{}.yaml", kind.plural()), &text)?,
            Err(error) => session.say(&format!("ERROR listing {}: {error:#}\n", kind.plural()))?,
        }
    }
    session.say("Collecting IPAM diags...\n")?;
    for (file, text) in ipam::summaries(session, &*store) {
        match text {
            Ok(text) => bundle.keep(&format!("cluster/{file}"), &text)?,
            Err(error) => session.say(&format!("ERROR collecting {file}: {error:#}\n"))?,
        }
    }
    let archive = bundle.pack(&format!("{name}.tar.gz"))?;
    let here = std::env::current_dir()?.join(format!("{name}.tar.gz"));
    std::fs::copy(&archive, &here)?;
    if !skip_temp_dir_cleanup {
        std::fs::remove_dir_all(bundle.place())?;
    }
    session.say(&format!("Diagnostics bundle: {}\n", here.display()))
}

fn listed(store: &dyn Store, kind: Kind) -> Result<String> {
    let listing = store.list(&Filter::Kind(kind))?;
    let mut text = String::new();
    for invalid in &listing.invalid {
        text.push_str(&format!("# {} can't be read: {}\n", invalid.path, invalid.reason));
    }
    for entry in &listing.entries {
        if let Some(resource) = entry.value.as_resource() {
            let value = Resource::to_value(resource);
            text.push_str(&format!("# revision {}\n{}---\n", entry.revision, to_yaml(&value)));
        }
    }
    Ok(text)
}
