//! Public keys of WireGuard.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A Curve25519 public key; text form base64, as `wg` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Text that is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no WireGuard key: expected 32 bytes, not all zero, in base64")]
pub struct PublicKeyError(String);

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        // Upstream publishes zeroes for "no key".
        bytes.filter(|bytes| *bytes != [0; 32]).map(PublicKey).ok_or_else(|| PublicKeyError(text.to_owned()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_wrong_text_is_refused() {
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        assert_eq!(text.parse::<PublicKey>().expect("a good key").to_string(), text);
        let zero = STANDARD.encode([0; 32]);
        for wrong in ["", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D", "a key", zero.as_str()] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }
}
