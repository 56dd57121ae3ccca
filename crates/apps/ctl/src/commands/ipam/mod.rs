//! `calicoctl ipam`, one file a command.

mod check;
mod configure;
mod release;
mod report;
mod show;
mod split;

use std::net::IpAddr;

use anyhow::{Result, bail};
use ipnet::IpNet;
use tortie_api::ClusterInformation;
use tortie_api::ipam::Block;
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, Key};
use tortie_store::{Entry, Reader, Store};

use crate::cli::Ipam;
use crate::session::Session;

pub(crate) fn ipam(session: &mut Session<'_, '_>, command: Ipam) -> Result<()> {
    match command {
        Ipam::Show { ip, show_blocks, show_borrowed, show_configuration, output } => {
            let what = match (ip, show_blocks, show_borrowed, show_configuration) {
                (Some(address), _, _, _) => show::What::Address(parse_address(&address)?),
                (None, true, _, _) => show::What::Use { blocks: true },
                (None, false, true, _) => show::What::Borrowed,
                (None, false, false, true) => show::What::Configuration,
                (None, false, false, false) => show::What::Use { blocks: false },
            };
            show::show(session, &what, output)
        }
        Ipam::Check { show_all_ips, show_problem_ips, output, kubeconfig: _ } => {
            check::check(session, show_all_ips, show_problem_ips || show_all_ips, output.as_deref())
        }
        Ipam::Release { ip, from_report, force } => release::release(session, ip.as_deref(), &from_report, force),
        Ipam::Configure { strictaffinity, max_blocks_per_host, kubevirt_ip_persistence, ip_cooldown_seconds } => {
            let change = configure::Change {
                strict_affinity: strictaffinity,
                max_blocks_per_host,
                persistence: kubevirt_ip_persistence,
                cooldown_secs: ip_cooldown_seconds,
            };
            configure::configure(session, change)
        }
        Ipam::Split { number, cidr, name } => split::split(session, number, cidr.as_deref(), name.as_deref()),
    }
}

/// What `ipam show` and `ipam check` say of all, by the names of files.
pub(super) fn summaries(session: &mut Session<'_, '_>, store: &dyn Store) -> Vec<(&'static str, Result<String>)> {
    vec![
        ("ipam_show_blocks.txt", show::utilization_table(store, true)),
        ("ipam_check.txt", check::summary(session, store)),
    ]
}

/// An address on the command line.
fn parse_address(text: &str) -> Result<IpAddr> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => bail!("invalid IP address specified: {text}: expected an address such as 10.0.0.1"),
    }
}

/// All blocks, sorted by address.
fn blocks(store: &dyn Store) -> Result<Vec<Entry>> {
    let mut entries = store.list(&Filter::Blocks)?.entries;
    entries.sort_by_key(|entry| if let Key::Block(cidr) = entry.key { Some(cidr) } else { None });
    Ok(entries)
}

/// The blocks among entries.
fn as_blocks(entries: &[Entry]) -> impl Iterator<Item = (IpNet, &Block)> {
    entries.iter().filter_map(|entry| match (&entry.key, entry.value.as_block()) {
        (Key::Block(cidr), Some(block)) => Some((*cidr, &**block)),
        _ => None,
    })
}

/// What the cluster says about itself, with the revision of that.
pub(in crate::commands) fn cluster(store: &dyn Store) -> Result<(ClusterInformation, String)> {
    let key = Key::resource(Kind::ClusterInformation, "", "default");
    let entry = Reader::get(store, &key)?;
    match entry.as_ref().and_then(|entry| Some((&**entry.value.as_resource()?, entry.revision))) {
        Some((Resource::ClusterInformation(info), revision)) => Ok(((**info).clone(), revision.to_string())),
        _ => bail!("error retrieving ClusterInformation: resource does not exist: {key}"),
    }
}

/// Whether nodes and controllers are told to leave the datastore alone.
pub(in crate::commands) fn is_locked(info: &ClusterInformation) -> bool {
    info.spec.datastore_ready == Some(false)
}
