//! Addresses and prefixes as written in a resource.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tortie_net::Family;

/// A prefix or a single address, kept as written; host bits may be set and are masked off on use.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct IpNetText(pub String);

impl IpNetText {
    /// The prefix with its host bits cleared; a plain address counts as /32 or /128. None if the text is neither.
    pub fn net(&self) -> Option<IpNet> {
        self.interface().map(|net| net.trunc())
    }

    /// The address and prefix length as written, host bits kept.
    pub fn interface(&self) -> Option<IpNet> {
        self.0.parse().ok().or_else(|| self.0.parse::<IpAddr>().ok().map(IpNet::from))
    }

    /// As [`IpNetText::interface`]; none as well for an address whose numbers begin with needless zeros, which other
    /// programs may read as octal.
    pub(crate) fn plain(&self) -> Option<IpNet> {
        let address = self.0.split_once('/').map_or(&*self.0, |(address, _)| address);
        address.parse::<IpAddr>().ok().and_then(|_| self.interface())
    }

    /// The address, host bits kept.
    pub fn addr(&self) -> Option<IpAddr> {
        self.interface().map(|net| net.addr())
    }

    /// The family of the prefix.
    pub fn family(&self) -> Option<Family> {
        self.interface().map(Family::of_net)
    }

    /// Whether a prefix length is written.
    pub(crate) fn has_length(&self) -> bool {
        self.0.contains('/')
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl crate::empty::Empty for IpNetText {
    fn is_empty_value(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for IpNetText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IpNet> for IpNetText {
    fn from(net: IpNet) -> Self {
        IpNetText(net.to_string())
    }
}

impl From<IpAddr> for IpNetText {
    fn from(addr: IpAddr) -> Self {
        IpNetText(addr.to_string())
    }
}

impl From<&str> for IpNetText {
    fn from(text: &str) -> Self {
        IpNetText(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_kept_in_text_and_masked_on_use() {
        let text = IpNetText::from("10.1.2.3/16");
        assert_eq!(text.net().expect("good").to_string(), "10.1.0.0/16");
        assert_eq!(text.addr().expect("good").to_string(), "10.1.2.3");
        assert_eq!(text.to_string(), "10.1.2.3/16");
        assert_eq!(IpNetText::from("fd00::1").net().expect("good").to_string(), "fd00::1/128");
        assert_eq!(IpNetText::from("10.0.0.0/33").net(), None);
        for (text, plain) in [("10.1.2.3/8", true), ("010.0.0.0/8", false), ("1.2.3.04", false), ("fd00::1", true)] {
            assert_eq!(IpNetText::from(text).plain().is_some(), plain, "{text}");
        }
    }
}
