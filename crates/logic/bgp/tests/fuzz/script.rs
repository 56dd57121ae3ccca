//! What a hostile peer does, as a text that can be kept.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use tortie_bgp::AfiSafi;
use tortie_bgp::attribute::{Aggregator, AsPath, Attributes, Unknown};
use tortie_bgp::message::capability::{Capability, GracefulRestart};
use tortie_bgp::message::keepalive;
use tortie_bgp::message::notification::Notification;
use tortie_bgp::message::open::Open;
use tortie_bgp::message::route_refresh::{self, Refresh};
use tortie_bgp::message::update::{encode_announcements, encode_withdrawals, end_of_rib};
use tortie_net::{AsNumber, Family, IpNet};

/// Address and router id of the hostile peer.
pub const HOSTILE: [u8; 4] = [10, 0, 0, 2];

/// One thing that the peer does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Sends bytes, over a new connection if there is none.
    Bytes(Vec<u8>),
    /// Opens one more connection.
    Dial,
    /// Closes its newest connection.
    Close,
    /// Waits, milliseconds.
    Wait(u32),
}

/// How the speaker is set up, and what the peer does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Script {
    /// Bits, see `world`.
    pub setup: u32,
    /// In this order.
    pub steps: Vec<Step>,
}

impl Script {
    /// A name for its file.
    pub fn name(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "setup {}", self.setup)?;
        for step in &self.steps {
            match step {
                Step::Bytes(bytes) => {
                    f.write_str("bytes ")?;
                    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                    writeln!(f)?;
                }
                Step::Dial => writeln!(f, "dial")?,
                Step::Close => writeln!(f, "close")?,
                Step::Wait(millis) => writeln!(f, "wait {millis}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let mut script = Script { setup: 0, steps: Vec::new() };
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let number = || rest.parse::<u32>().map_err(|_| format!("{line:?}: expected a number"));
            match word {
                "setup" => script.setup = number()?,
                "wait" => script.steps.push(Step::Wait(number()?)),
                "dial" => script.steps.push(Step::Dial),
                "close" => script.steps.push(Step::Close),
                "bytes" => {
                    let pairs = rest.as_bytes().chunks(2);
                    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                    let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
                    script.steps.push(Step::Bytes(bytes.ok_or_else(|| format!("{line:?}: expected hexadecimal"))?));
                }
                other => return Err(format!("{other:?}: expected setup, bytes, dial, close or wait")),
            }
        }
        Ok(script)
    }
}

fn open(asn: u32, restarted: bool) -> Vec<u8> {
    let families = Family::ALL.map(AfiSafi::unicast);
    let restart = GracefulRestart { restarted, restart_time_secs: 60, families: families.map(|f| (f, true)).to_vec() };
    let mut capabilities: Vec<Capability> = families.map(Capability::Multiprotocol).to_vec();
    capabilities.extend([
        Capability::RouteRefresh,
        Capability::EnhancedRefresh,
        Capability::GracefulRestart(restart),
        Capability::LongLived(families.map(|f| (f, 3600)).to_vec()),
        Capability::FourByteAs(AsNumber(asn)),
        Capability::Other { code: 73, value: b"host".to_vec() },
    ]);
    Open { asn: AsNumber(asn), hold_time_secs: 90, router_id: HOSTILE.into(), capabilities }.encode()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a literal")).collect()
}

fn routes(asn: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let rich = Attributes {
        next_hop: HOSTILE.into(),
        as_path: AsPath::sequence(&[AsNumber(asn), AsNumber(70_000)]),
        med: Some(5),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: AsNumber(70_000), router: HOSTILE.into() }),
        communities: vec![0xffff_ff01, 0xffff_0006, 64512 << 16 | 7].into(),
        large_communities: vec![[64512, 1, 2]].into(),
        originator_id: Some([10, 0, 0, 9].into()),
        cluster_list: vec![0x0101_0102].into(),
        unknown: vec![Unknown { code: 200, value: vec![1, 2, 3].into() }].into(),
        ..Attributes::default()
    };
    let plain =
        Attributes { next_hop: HOSTILE.into(), as_path: AsPath::sequence(&[AsNumber(asn)]), ..Attributes::default() };
    for attributes in [&rich, &plain] {
        let v4 = nets(&["192.168.0.0/26", "192.168.0.64/26", "0.0.0.0/0", "10.1.2.3/32"]);
        encode_announcements(Family::V4, attributes, &v4, true, &mut bytes);
        let over = Attributes { next_hop: "fd00::2".parse().expect("a literal"), ..attributes.clone() };
        encode_announcements(Family::V6, &over, &nets(&["fd00:1::/64", "::/0", "fd00::7/128"]), true, &mut bytes);
    }
    bytes
}

fn told<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

/// Sessions of a peer that does everything right, to begin with.
pub fn seeds() -> Vec<Script> {
    let mut all = Vec::new();
    for (setup, asn) in [(0, 64512), (1, 65001), (2, 64512), (3 | 8, 65001), (4, 64512), (16 | 1, 65001), (32, 64512)] {
        let up = [open(asn, false), keepalive()].concat();
        let ends = Family::ALL.map(|family| told(|out| end_of_rib(family, out)));
        let mark =
            |kind| Family::ALL.map(|f| told(|out| route_refresh::write(AfiSafi::unicast(f), kind, out))).concat();
        let gone = told(|out| encode_withdrawals(Family::V4, &nets(&["192.168.0.0/26"]), out));
        let gone6 = told(|out| encode_withdrawals(Family::V6, &nets(&["fd00:1::/64"]), out));
        let bytes = Step::Bytes;
        all.push(Script {
            setup,
            steps: vec![
                bytes(up.clone()),
                bytes(routes(asn)),
                bytes(ends.concat()),
                bytes([mark(Refresh::Request), mark(Refresh::Begin), routes(asn), mark(Refresh::End)].concat()),
                bytes([gone, gone6].concat()),
                Step::Wait(45_000),
                bytes(keepalive()),
                Step::Close,
                Step::Wait(2000),
                bytes([open(asn, true), keepalive(), routes(asn), ends.concat()].concat()),
                Step::Dial,
                bytes(up),
                Step::Wait(100_000),
                bytes(Notification::COLLISION.encode()),
                Step::Wait(4_000_000),
            ],
        });
    }
    all
}
