//! `calicoctl node checksystem`: whether this host's kernel has what a node needs, in upstream's form.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::bundle::must_be_root;
use crate::session::Session;

/// The oldest kernel whose nf_tables has what the rules use.
const OLDEST: (u32, u32) = (5, 4);

/// A part of the kernel.
struct Part {
    /// As a module.
    module: &'static str,
    /// As an option of the configuration that the kernel was built with.
    option: &'static str,
    /// Whether a node works without it.
    optional: bool,
}

const fn needed(module: &'static str, option: &'static str) -> Part {
    Part { module, option, optional: false }
}

const fn wished(module: &'static str, option: &'static str) -> Part {
    Part { module, option, optional: true }
}

const PARTS: [Part; 12] = [
    needed("nf_tables", "CONFIG_NF_TABLES"),
    needed("nf_conntrack", "CONFIG_NF_CONNTRACK"),
    needed("nf_nat", "CONFIG_NF_NAT"),
    needed("nft_ct", "CONFIG_NFT_CT"),
    needed("nft_fib", "CONFIG_NFT_FIB"),
    needed("nft_masq", "CONFIG_NFT_MASQ"),
    needed("nft_reject", "CONFIG_NFT_REJECT"),
    needed("veth", "CONFIG_VETH"),
    wished("nft_log", "CONFIG_NFT_LOG"),
    wished("vxlan", "CONFIG_VXLAN"),
    wished("ipip", "CONFIG_NET_IPIP"),
    wished("wireguard", "CONFIG_WIREGUARD"),
];

/// What tells which parts there are.
struct Kernel {
    release: String,
    /// Paths of modules that can be loaded or are built in, one a line.
    modules: String,
    /// The configuration that it was built with.
    config: String,
}

impl Kernel {
    fn read(config: Option<&str>) -> Result<Kernel> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let list = |name: &str| std::fs::read_to_string(format!("/lib/modules/{release}/{name}")).unwrap_or_default();
        let modules = list("modules.dep") + &list("modules.builtin");
        let config = match config {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| anyhow::anyhow!("can't read the kernel's configuration {path}: {error}"))?,
            None => usual_config(&release),
        };
        Ok(Kernel { release, modules, config })
    }

    fn is_new_enough(&self) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
    }

    fn has(&self, part: &Part) -> bool {
        let Part { module, option, optional: _ } = part;
        let file = format!("/{module}.ko");
        Path::new("/sys/module").join(module).exists()
            || self.modules.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
            || self.config.lines().any(|line| {
                line.split_once('=').is_some_and(|(name, value)| name == *option && matches!(value, "y" | "m"))
            })
    }
}

/// The configuration from where distributions put it, or from the kernel itself; empty if there is none.
fn usual_config(release: &str) -> String {
    let places = [
        "/usr/src/linux/.config".to_owned(),
        format!("/boot/config-{release}"),
        format!("/usr/src/linux-{release}/.config"),
        format!("/usr/src/linux-headers-{release}/.config"),
        format!("/lib/modules/{release}/build/.config"),
    ];
    places.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_else(|| {
        let own = Command::new("gzip").args(["-dc", "/proc/config.gz"]).output();
        own.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    })
}

pub(crate) fn checksystem(session: &mut Session<'_, '_>, config: Option<&str>) -> Result<()> {
    must_be_root()?;
    let kernel = Kernel::read(config)?;
    session.say(&table(&kernel))?;
    if !kernel.is_new_enough() || PARTS.iter().any(|part| !part.optional && !kernel.has(part)) {
        bail!("system doesn't meet one or more minimum systems requirements to run Calico");
    }
    session.say("System meets minimum system requirements to run Calico!\n")
}

fn table(kernel: &Kernel) -> String {
    let line = |what: &str, result: &str| format!("\t\t{what:<20}\t\t\t\t\t{result}\n");
    let mut text = "Checking kernel version...\n".to_owned();
    if kernel.is_new_enough() {
        text.push_str(&line(&kernel.release, "OK"));
    } else {
        text.push_str(&line(&kernel.release, "FAIL"));
        let (major, minor) = OLDEST;
        text.push_str(&format!(
            "Minimum kernel version to run Calico is {major}.{minor}. Detected kernel version: {}\n",
            kernel.release
        ));
    }
    text.push_str("Checking kernel modules...\n");
    for part in &PARTS {
        let module = part.module;
        match (kernel.has(part), part.optional) {
            (true, _) => text.push_str(&line(module, "OK")),
            (false, true) => {
                text.push_str(&format!(
                    "WARNING: Unable to detect optional module/feature {module}; continuing\n{}",
                    line(module, "SKIP")
                ));
            }
            (false, false) => {
                text.push_str(&format!(
                    "WARNING: Unable to detect the {module} module as Loaded/Builtin module or lsmod\n{}",
                    line(module, "FAIL")
                ));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_as_modules_or_in_the_configuration() {
        let kernel = |release: &str, modules: &str, config: &str| Kernel {
            release: release.to_owned(),
            modules: modules.to_owned(),
            config: config.to_owned(),
        };
        let part = needed("no_such_thing", "CONFIG_NO_SUCH_THING");
        assert!(kernel("6.1.0-x", "kernel/net/no_such_thing.ko.xz: kernel/other.ko.xz\n", "").has(&part));
        assert!(kernel("6.1.0-x", "", "CONFIG_NO_SUCH_THING=m\n").has(&part));
        for (modules, config) in [
            ("", ""),
            ("kernel/net/other.ko: kernel/net/no_such_thing.ko\n", ""),
            ("kernel/net/no_such_thing_else.ko:\n", ""),
            ("", "# CONFIG_NO_SUCH_THING is not set\nCONFIG_NO_SUCH_THING_ELSE=y\n"),
        ] {
            assert!(!kernel("6.1.0", modules, config).has(&part), "{modules}{config}");
        }
    }

    #[test]
    fn old_kernels_fail_and_say_why() {
        let kernel =
            |release: &str| Kernel { release: release.to_owned(), modules: String::new(), config: String::new() };
        for (release, good) in [("5.4.0-91-generic", true), ("6.18.5", true), ("5.3.18", false), ("4.19.0", false)] {
            assert_eq!(kernel(release).is_new_enough(), good, "{release}");
        }
        assert!(table(&kernel("4.19.0")).contains("Minimum kernel version to run Calico is 5.4"));
    }
}
