//! What this kernel's iptables has, tried in a chain that no packet meets.

use tortie_net::Family;
use tortie_ruleset::REVOKED_MARK;

use crate::content::Flavour;
use crate::error::Error;
use crate::programs::run;

const CHAIN: &str = "cali-probe";

/// Something that rules may need, and that a kernel can be built without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Telling of packets at a limited rate (`NFLOG`, `hashlimit`).
    Records,
    /// Marks on connections (`connmark`).
    Marks,
    /// Whose an address is (`addrtype`).
    AddressTypes,
}

impl Feature {
    fn rule(self) -> String {
        match self {
            Feature::Records => {
                "-m hashlimit --hashlimit-upto 1/second --hashlimit-burst 1 --hashlimit-name cali_probe \
                                 -j NFLOG --nflog-group 1 --nflog-prefix probe"
                    .to_owned()
            }
            Feature::AddressTypes => "-m addrtype --src-type LOCAL -j RETURN".to_owned(),
            Feature::Marks => format!("-m connmark ! --mark {REVOKED_MARK:#x}/{REVOKED_MARK:#x} -j RETURN"),
        }
    }
}

/// Whether rules can use this; else the words of the program that refused it.
pub fn has(flavour: Flavour, feature: Feature) -> Result<(), Error> {
    let restore = |text: &str| {
        let program = flavour.program(Family::V4, "restore");
        run(&program, &["--noflush", "--wait", "20"], text).map(drop)
    };
    let tried = restore(&format!("*filter\n:{CHAIN} - [0:0]\n-A {CHAIN} {}\nCOMMIT\n", feature.rule()));
    let cleared = restore(&format!("*filter\n:{CHAIN} - [0:0]\n-X {CHAIN}\nCOMMIT\n"));
    tried.and(cleared)
}
