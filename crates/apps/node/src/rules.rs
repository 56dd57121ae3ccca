//! Which packet filter holds the node's policy, and what is left of the others.
//!
//! Invariant: rules of another filter go only when the chosen one holds everything, so that changing from one to
//! another, or coming from upstream, opens nothing.

use std::time::Duration;

use anyhow::{Result, bail};
use tortie_api::{FelixConfigurationSpec, IptablesBackend, NftablesMode};
use tortie_dataplane::{Cause, PolicyBackend};
use tortie_iptables::{Allow, Feature, Flavour, Iptables, Options};
use tortie_nftables::Nftables;
use tracing::{error, info, warn};

use crate::drops::CountedBy;

/// How often, and after which times, leftovers are tried to be removed.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// A packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Nftables,
    Iptables(Flavour),
}

const FILTERS: [Filter; 3] = [Filter::Nftables, Filter::Iptables(Flavour::Legacy), Filter::Iptables(Flavour::Nft)];

/// The chosen packet filter, which has changed nothing yet, and what to remove when it holds all.
pub struct Rules {
    /// The filter.
    pub backend: Box<dyn PolicyBackend>,
    /// Whether it is iptables.
    pub iptables: bool,
    /// The others.
    pub leftovers: Leftovers,
}

/// Opens the filter that the settings ask for.
pub fn open(felix: &FelixConfigurationSpec) -> Result<Rules> {
    let chosen = choose(felix)?;
    let others = Leftovers(FILTERS.into_iter().filter(|filter| *filter != chosen).collect());
    let backend: Box<dyn PolicyBackend> = match chosen {
        Filter::Nftables => Box::new(Nftables::open()?),
        Filter::Iptables(flavour) => Box::new(Iptables::new(options(felix, flavour, others.hold_policy()))),
    };
    info!(filter = backend.name(), "policy goes into this packet filter");
    Ok(Rules { backend, iptables: matches!(chosen, Filter::Iptables(_)), leftovers: others })
}

/// Where what rules count can be read, if the chosen packet filter can tell of packets.
pub fn counts(felix: &FelixConfigurationSpec) -> Option<CountedBy> {
    match choose(felix).ok()? {
        Filter::Nftables => Some(CountedBy::Nftables),
        Filter::Iptables(flavour) => match tortie_iptables::has(flavour, Feature::Records) {
            Ok(()) => Some(CountedBy::Iptables(flavour)),
            Err(cause) => {
                warn!(%cause, "iptables can't tell of packets here: packets that end are not recorded");
                None
            }
        },
    }
}

/// Whether the chosen packet filter can ask for marks on connections, by which established flows are stopped; else why.
pub fn can_mark(felix: &FelixConfigurationSpec) -> Result<(), String> {
    let tried = match choose(felix) {
        Ok(Filter::Nftables) => tortie_nftables::has_connection_marks().map_err(Cause::from),
        Ok(Filter::Iptables(flavour)) => tortie_iptables::has(flavour, Feature::Marks).map_err(Cause::from),
        // Opening it says so.
        Err(_) => Ok(()),
    };
    tried.map_err(|cause| format!("rules can't ask for marks on connections: {cause}"))
}

/// Whether the chosen packet filter can ask whose an address is, by which what the host sends into tunnels gets their
/// addresses; else why.
pub fn can_tell_addresses(felix: &FelixConfigurationSpec) -> Result<(), String> {
    let tried = match choose(felix) {
        Ok(Filter::Nftables) => tortie_nftables::has_address_types().map_err(Cause::from),
        Ok(Filter::Iptables(flavour)) => tortie_iptables::has(flavour, Feature::AddressTypes).map_err(Cause::from),
        // Opening it says so.
        Err(_) => Ok(()),
    };
    tried.map_err(|cause| format!("rules can't ask whose an address is: {cause}"))
}

fn choose(felix: &FelixConfigurationSpec) -> Result<Filter> {
    match felix.nftables_mode.unwrap_or_default() {
        NftablesMode::Enabled => Ok(Filter::Nftables),
        NftablesMode::Disabled => Ok(Filter::Iptables(flavour(felix)?)),
        // Upstream follows kube-proxy here. Each filter works beside each of kube-proxy's, so the better one is taken.
        NftablesMode::Auto => match Nftables::open() {
            Ok(_) => Ok(Filter::Nftables),
            Err(cause) => {
                warn!(%cause, "nf_tables can't be used; iptables is tried");
                Ok(Filter::Iptables(flavour(felix)?))
            }
        },
    }
}

fn flavour(felix: &FelixConfigurationSpec) -> Result<Flavour> {
    let asked = match felix.iptables_backend.unwrap_or_default() {
        IptablesBackend::Legacy => Flavour::Legacy,
        IptablesBackend::Nft => Flavour::Nft,
        IptablesBackend::Auto => {
            let Some(found) = tortie_iptables::detect() else {
                bail!(
                    "NFTablesMode=Disabled needs iptables and ipset, and neither iptables-legacy nor iptables-nft is \
                     there with ipset: install the packages iptables and ipset, or set NFTablesMode=Enabled"
                );
            };
            found
        }
    };
    if !tortie_iptables::is_installed(asked) {
        bail!(
            "IptablesBackend={}: the programs iptables-{asked}-save, iptables-{asked}-restore, those of ip6tables, and \
             ipset are not all there: install the packages iptables and ipset, or set NFTablesMode=Enabled",
            felix.iptables_backend.unwrap_or_default()
        );
    }
    Ok(asked)
}

fn options(felix: &FelixConfigurationSpec, flavour: Flavour, covered: bool) -> Options {
    let allow = |text: &str| if text.eq_ignore_ascii_case("return") { Allow::Return } else { Allow::Accept };
    Options {
        append: felix.chain_insert_mode.eq_ignore_ascii_case("append"),
        filter_allow: allow(&felix.iptables_filter_allow_action),
        mangle_allow: allow(&felix.iptables_mangle_allow_action),
        covered,
        ..Options::new(flavour)
    }
}

/// Packet filters that are not in use, whose rules of ours or of upstream must go.
#[derive(Debug, Default)]
pub struct Leftovers(Vec<Filter>);

impl Leftovers {
    /// Whether any of them holds policy now.
    fn hold_policy(&self) -> bool {
        let Leftovers(filters) = self;
        filters.iter().any(|filter| match filter {
            Filter::Nftables => tortie_nftables::holds_policy().unwrap_or(false),
            Filter::Iptables(flavour) => tortie_iptables::leftovers(*flavour).unwrap_or(false),
        })
    }

    /// Removes them by a thread of its own, which ends when they are gone: their programs may take their time. Called
    /// once, when the chosen filter holds everything.
    pub fn remove(&mut self, chosen: &'static str) {
        let filters = std::mem::take(&mut self.0);
        let work = move || {
            // The sets of one flavour of iptables serve the other one too.
            let keeps_sets = chosen.starts_with("iptables");
            for filter in filters {
                remove(filter, keeps_sets);
            }
        };
        if let Err(cause) = std::thread::Builder::new().name("leftovers".to_owned()).spawn(work) {
            error!(%cause, "rules of other packet filters can't be removed");
        }
    }
}

fn remove(filter: Filter, keeps_sets: bool) {
    for attempt in 1..=TRIES {
        match remove_once(filter, keeps_sets) {
            Ok(false) => return,
            Ok(true) => {
                info!(?filter, "rules that an earlier packet filter held are removed");
                return;
            }
            Err(cause) if attempt == TRIES => {
                error!(?filter, %cause, "rules that an earlier packet filter held can't be removed; they stay in force");
            }
            Err(_) => std::thread::sleep(PAUSE * attempt),
        }
    }
}

/// Whether anything was there.
fn remove_once(filter: Filter, keeps_sets: bool) -> Result<bool, Cause> {
    match filter {
        Filter::Nftables => {
            let there = tortie_nftables::holds_policy()?;
            if there {
                Nftables::open()?.remove_all()?;
                tortie_nftables::remove_upstream()?;
            }
            Ok(there)
        }
        Filter::Iptables(flavour) => {
            let there = tortie_iptables::leftovers(flavour)?;
            if there {
                tortie_iptables::remove(flavour, keeps_sets)?;
            }
            Ok(there)
        }
    }
}
