//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address of six bytes; text form `ee:ee:ee:ee:ee:ee`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address: expected six hexadecimal bytes joined by ':'")]
pub struct MacError(String);

impl Mac {
    /// The address that every host side of a workload's veth pair carries, as upstream.
    pub const WORKLOAD_HOST_SIDE: Mac = Mac([0xee; 6]);
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| (1..=2).contains(&p.len())).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Mac(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_wrong_text_is_refused() {
        let mac: Mac = "0A:1b:2c:3d:4e:5f".parse().expect("a good address");
        assert_eq!(mac.to_string(), "0a:1b:2c:3d:4e:5f");
        for wrong in ["", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5f:60", "0a:1b:2c:3d:4e:5g", "0a1b2c3d4e5f"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
