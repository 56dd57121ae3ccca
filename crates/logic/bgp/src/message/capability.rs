//! Capabilities that an OPEN announces (RFC 5492).
//!
//! Invariant: a capability of unknown code, or of a known code with a wrong length, is kept as `Other` and has no effect.

use tortie_net::AsNumber;

use crate::family::{AfiSafi, Families};
use crate::wire::Reader;

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Routes of this family can be exchanged (RFC 4760, code 1).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH is understood (RFC 2918, code 2).
    RouteRefresh,
    /// Graceful restart (RFC 4724, code 64).
    GracefulRestart(GracefulRestart),
    /// AS numbers have four bytes, and this is ours (RFC 6793, code 65).
    FourByteAs(AsNumber),
    /// ROUTE-REFRESH answers have a beginning and an end (RFC 7313, code 70).
    EnhancedRefresh,
    /// Long-lived graceful restart (RFC 9494, code 71): for each family the seconds to keep its routes, 24 bits.
    LongLived(Vec<(AfiSafi, u32)>),
    /// Any other.
    Other {
        /// The capability's code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted and waits for End-of-RIB from us.
    pub restarted: bool,
    /// Seconds within which the sender expects to be back after a loss; at most 4095.
    pub restart_time_secs: u16,
    /// Families with graceful restart, each with its F bit: forwarding state was preserved.
    pub families: Vec<(AfiSafi, bool)>,
}

impl GracefulRestart {
    /// The families listed that we can speak.
    pub fn listed(&self) -> Families {
        self.collect(|_| true)
    }

    /// The families whose F bit is set.
    pub fn preserved(&self) -> Families {
        self.collect(|preserved| preserved)
    }

    fn collect(&self, keep: impl Fn(bool) -> bool) -> Families {
        let mut set = Families::NONE;
        for (afi_safi, preserved) in &self.families {
            if let Some(family) = afi_safi.family().filter(|_| keep(*preserved)) {
                set.set(family, true);
            }
        }
        set
    }

    fn parse(value: &[u8]) -> Option<GracefulRestart> {
        let mut reader = Reader::new(value);
        let head = reader.u16()?;
        let mut families = Vec::new();
        while !reader.is_empty() {
            let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
            families.push((AfiSafi { afi, safi }, flags & 0x80 != 0));
        }
        Some(GracefulRestart { restarted: head & 0x8000 != 0, restart_time_secs: head & 0x0fff, families })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let GracefulRestart { restarted, restart_time_secs, families } = self;
        let head = (*restart_time_secs).min(0x0fff) | if *restarted { 0x8000 } else { 0 };
        out.extend_from_slice(&head.to_be_bytes());
        for (AfiSafi { afi, safi }, preserved) in families {
            out.extend_from_slice(&afi.to_be_bytes());
            out.extend_from_slice(&[*safi, if *preserved { 0x80 } else { 0 }]);
        }
    }
}

fn long_lived(value: &[u8]) -> Option<Vec<(AfiSafi, u32)>> {
    let mut reader = Reader::new(value);
    let mut families = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, _flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let (high, low) = (reader.u8()?, reader.u16()?);
        families.push((AfiSafi { afi, safi }, u32::from(high) << 16 | u32::from(low)));
    }
    Some(families)
}

impl Capability {
    /// Reads the value of a capabilities parameter; `None` if a length goes past its end.
    pub(crate) fn parse_all(bytes: &[u8], into: &mut Vec<Capability>) -> Option<()> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let (code, length) = (reader.u8()?, reader.u8()?);
            let value = reader.take(usize::from(length))?;
            into.push(Capability::parse(code, value));
        }
        Some(())
    }

    fn parse(code: u8, value: &[u8]) -> Capability {
        let other = || Capability::Other { code, value: value.to_vec() };
        match (code, value) {
            (1, [a, b, _, safi]) => {
                Capability::Multiprotocol(AfiSafi { afi: u16::from_be_bytes([*a, *b]), safi: *safi })
            }
            (2, []) => Capability::RouteRefresh,
            (64, _) => GracefulRestart::parse(value).map_or_else(other, Capability::GracefulRestart),
            (65, [a, b, c, d]) => Capability::FourByteAs(AsNumber(u32::from_be_bytes([*a, *b, *c, *d]))),
            (70, []) => Capability::EnhancedRefresh,
            (71, _) => long_lived(value).map_or_else(other, Capability::LongLived),
            _ => other(),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        let code = match self {
            Capability::Multiprotocol(AfiSafi { afi, safi }) => {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[0, *safi]);
                1
            }
            Capability::RouteRefresh => 2,
            Capability::GracefulRestart(restart) => {
                restart.encode(out);
                64
            }
            Capability::FourByteAs(AsNumber(number)) => {
                out.extend_from_slice(&number.to_be_bytes());
                65
            }
            Capability::EnhancedRefresh => 70,
            Capability::LongLived(families) => {
                for (AfiSafi { afi, safi }, secs) in families {
                    out.extend_from_slice(&afi.to_be_bytes());
                    out.extend_from_slice(&[*safi, 0x80]);
                    out.extend_from_slice(&(*secs).min(0x00ff_ffff).to_be_bytes()[1..]);
                }
                71
            }
            Capability::Other { code, value } => {
                out.extend_from_slice(value);
                *code
            }
        };
        let length = out.len() - start - 2;
        out[start] = code;
        out[start + 1] = u8::try_from(length).expect("capabilities that we build are short");
    }
}
