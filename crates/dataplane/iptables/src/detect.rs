//! Which iptables a host uses, and what is left of ours in it.

use std::fs;

use tortie_net::Family;

use crate::content::Flavour;
use crate::error::Error;
use crate::programs::run;
use crate::save;

/// Chains by which Kubernetes' kubelet says which iptables it uses.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// Whether the programs of a flavour are there, and ipset.
pub fn is_installed(flavour: Flavour) -> bool {
    let programs = Family::ALL.into_iter().flat_map(|f| ["save", "restore"].map(|what| flavour.program(f, what)));
    programs.chain(["ipset".to_owned()]).all(|program| run(&program, &["--version"], "").is_ok())
}

/// The flavour that the host's other rules are in, as upstream finds it: where the kubelet's hint is, else where more
/// rules are, else legacy; of those whose programs are there. `None`: of neither.
pub fn detect() -> Option<Flavour> {
    let there: Vec<Flavour> = Flavour::ALL.into_iter().filter(|flavour| is_installed(*flavour)).collect();
    if let [] | [_] = there.as_slice() {
        return there.first().copied();
    }
    let texts = |flavour| -> Vec<String> {
        Family::ALL.into_iter().filter_map(|family| saved(flavour, family).ok().flatten()).collect()
    };
    let (legacy, nft) = (texts(Flavour::Legacy), texts(Flavour::Nft));
    let hinted = |texts: &[String]| texts.iter().any(|text| HINTS.iter().any(|hint| text.contains(hint)));
    let rules =
        |texts: &[String]| texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with('-')).count();
    Some(match (hinted(&nft), hinted(&legacy)) {
        (true, _) => Flavour::Nft,
        (false, true) => Flavour::Legacy,
        (false, false) if rules(&legacy) >= rules(&nft) => Flavour::Legacy,
        (false, false) => Flavour::Nft,
    })
}

/// Whether rules or chains of ours, or of upstream, are in this flavour.
pub fn leftovers(flavour: Flavour) -> Result<bool, Error> {
    for family in Family::ALL {
        let Some(text) = saved(flavour, family)? else { continue };
        let any = save::parse(&text).values().any(|seen| !seen.chains.is_empty() || !seen.hooks.is_empty());
        if any {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All rules of a flavour; `None` where it has no tables. Asking the legacy one makes the kernel load its modules, after
/// which every packet passes its empty tables: so it is not asked where it was never used.
fn saved(flavour: Flavour, family: Family) -> Result<Option<String>, Error> {
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let used = || fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty());
    if flavour == Flavour::Legacy && !used() {
        return Ok(None);
    }
    run(&flavour.program(family, "save"), &[], "").map(Some)
}
