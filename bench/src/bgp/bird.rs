//! BIRD: its configuration, its process, its route count.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tortie_netlink::Netns;

use super::{AS, Neighbour};
use crate::bed::{Bed, Running};

/// A running BIRD.
pub struct Bird {
    /// Its process.
    pub process: Running,
    control: PathBuf,
}

impl Bird {
    /// Starts BIRD with routes of its own and iBGP neighbours; nothing goes to the kernel.
    pub fn start(
        bed: &Bed,
        netns: &Netns,
        name: &str,
        own: Ipv4Addr,
        neighbours: &[Neighbour],
        routes: impl Iterator<Item = IpNet>,
    ) -> Result<Bird> {
        let mut text = format!(
            "router id {own};\nprotocol device {{ scan time 60; }}\nipv4 table igp4;\n\
             protocol static {{ ipv4 {{ table igp4; }}; route 10.80.0.0/15 via \"eth0\"; }}\nprotocol static {{ ipv4;\n"
        );
        for prefix in routes {
            writeln!(text, "route {prefix} blackhole;")?;
        }
        writeln!(text, "}}")?;
        for (at, Neighbour { address, client, passive, bfd: _ }) in neighbours.iter().enumerate() {
            // A reflector leaves next hops as they are.
            let (role, next_hop) = if *client { ("rr client;", "") } else { ("", "next hop self;") };
            let passive = if *passive { "passive yes;" } else { "" };
            writeln!(
                text,
                "protocol bgp p{at} {{ local as {AS}; source address {own}; neighbor {address} as {AS}; {role} {passive}\n\
                 ipv4 {{ igp table igp4; import all; export all; {next_hop} }};\n\
                 graceful restart; connect delay time 1; connect retry time 1; error wait time 1,5; }}"
            )?;
        }
        let (conf, control) = (bed.path(&format!("{name}.conf")), bed.path(&format!("{name}.ctl")));
        std::fs::write(&conf, text)?;
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(&conf).arg("-s").arg(&control).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Running::of(netns.run(|| command.spawn())?.context("can't start bird (Debian's bird2)")?);
        Ok(Bird { process, control })
    }

    /// How many networks it holds; 0 while it is not up. It counts them each time.
    pub fn count(&self) -> u32 {
        // One line a table: "N of N routes for M networks in table T".
        let networks = |line: &str| {
            let (counts, table) = line.split_once(" networks in table ")?;
            (table == "master4").then_some(())?;
            counts.split(" routes for ").nth(1)?.parse().ok()
        };
        ask(&self.control, "show route count", networks).unwrap_or(0)
    }

    /// How many routes it took from its first neighbour, which it knows without counting; 0 while it is not up.
    pub fn received(&self) -> u32 {
        let imported = |line: &str| line.trim().strip_prefix("Routes:")?.split_whitespace().next()?.parse().ok();
        ask(&self.control, "show protocols all p0", imported).unwrap_or(0)
    }
}

/// Asks by the control socket, and takes the first line of the answer that `find` makes something of.
fn ask(control: &Path, question: &str, find: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    let mut stream = UnixStream::connect(control).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("{question}\n").as_bytes()).ok()?;
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let got = stream.read(&mut buffer).ok()?;
        if got == 0 {
            return None;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..got]));
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        if let Some(found) = whole.lines().find_map(&find) {
            return Some(found);
        }
        // An answer ends with a line whose code is followed by a blank.
        let ends =
            |line: &str| ["0000 ", "0014 "].iter().any(|code| line.starts_with(code)) || line.starts_with(['8', '9']);
        if whole.lines().any(ends) {
            return None;
        }
    }
}
