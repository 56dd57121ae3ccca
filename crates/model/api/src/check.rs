//! The wrong values of a resource, collected, and the checks of single values that kinds share.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_net::{Family, PortRange};
use tortie_selector::Selector;

use crate::error::{FieldError, nearest};
use crate::path::Path;
use crate::text;
use crate::{IpNetText, Port};

/// What a kind fills in and what it refuses.
pub(crate) trait Checked {
    /// Fills in what upstream fills in before storing.
    fn apply_defaults(&mut self) {}
    /// Reports every wrong value.
    fn check(&self, out: &mut Findings);
}

/// The wrong values found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<FieldError>);

impl Findings {
    /// Reports a wrong value.
    pub(crate) fn wrong(&mut self, path: &Path<'_>, value: impl ToString, expected: impl Into<String>) {
        self.push(path, value.to_string(), expected.into(), None);
    }

    fn push(&mut self, path: &Path<'_>, value: String, expected: String, nearest: Option<String>) {
        self.0.push(FieldError { path: path.to_string(), value, expected, nearest });
    }

    pub(crate) fn into_result(self) -> Result<(), Vec<FieldError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }

    /// The value, if not empty, is one of these words in any case.
    pub(crate) fn word(&mut self, path: &Path<'_>, value: &str, words: &[&'static str]) {
        if !value.is_empty() && !words.iter().any(|word| word.eq_ignore_ascii_case(value)) {
            let near = nearest(value, words.iter().copied()).map(str::to_owned);
            self.push(path, format!("{value:?}"), format!("one of {}", words.join(", ")), near);
        }
    }

    /// The name is one that a port of an endpoint may have.
    pub(crate) fn port_name(&mut self, path: &Path<'_>, name: &str) {
        if !text::is_port_name(name) {
            let lower = Some(name.to_lowercase()).filter(|lower| text::is_port_name(lower));
            let near = range_meant(name).or(lower);
            self.push(path, format!("{name:?}"), "a port, a range written 80:90, or a port name".to_owned(), near);
        }
    }

    /// The port, if given, is a number or a range.
    pub(crate) fn port_range(&mut self, path: &Path<'_>, port: Option<&Port>) {
        if let Some(Port::Named(name)) = port {
            self.push(path, format!("{name:?}"), "a port, or a range written 80:90".to_owned(), range_meant(name));
        }
    }

    /// The number, if given, is in the range.
    pub(crate) fn range(&mut self, path: &Path<'_>, value: Option<i64>, low: i64, high: i64) {
        if let Some(value) = value.filter(|v| !(low..=high).contains(v)) {
            self.wrong(path, value, format!("a number from {low} to {high}"));
        }
    }

    /// The list is not longer than this.
    pub(crate) fn at_most<T>(&mut self, path: &Path<'_>, items: &[T], limit: usize) {
        if items.len() > limit {
            self.wrong(path, format!("{} items", items.len()), format!("at most {limit}"));
        }
    }

    /// No item stands in the list twice.
    pub(crate) fn unique<T: PartialEq + ToString>(&mut self, path: &Path<'_>, items: &[T]) {
        for (i, item) in items.iter().enumerate() {
            if items[..i].contains(item) {
                self.wrong(&path.index(i), item.to_string(), "each value once");
            }
        }
    }

    /// The text, if not empty, is a DNS-1123 subdomain.
    pub(crate) fn name(&mut self, path: &Path<'_>, value: &str) {
        if !value.is_empty() && !text::is_dns_subdomain(value) {
            self.wrong(path, format!("{value:?}"), text::DNS_SUBDOMAIN);
        }
    }

    /// Every one is a DNS-1123 subdomain, and none is empty.
    pub(crate) fn names(&mut self, path: &Path<'_>, values: &[String]) {
        for (i, value) in values.iter().enumerate() {
            self.given(&path.index(i), value, "a name");
            self.name(&path.index(i), value);
        }
    }

    /// The text is not empty.
    pub(crate) fn given(&mut self, path: &Path<'_>, value: &str, expected: &str) {
        if value.is_empty() {
            self.wrong(path, "\"\"", expected);
        }
    }

    /// The text parses as a selector, is not too long and has no `global()`.
    pub(crate) fn selector(&mut self, path: &Path<'_>, value: &str) {
        self.namespace_selector(path, value);
        if value.contains("global(") {
            self.wrong(
                path,
                format!("{value:?}"),
                "a selector without global(); only a rule's namespaceSelector may use it",
            );
        }
    }

    /// The text parses as a selector and is not too long; `global()` may stand alone.
    pub(crate) fn namespace_selector(&mut self, path: &Path<'_>, value: &str) {
        if value.len() > 1024 {
            self.wrong(path, format!("{} bytes", value.len()), "a selector of at most 1024 bytes");
        } else if let Err(error) = Selector::parse(value) {
            self.wrong(path, format!("{value:?}"), format!("a selector: {error}"));
        }
    }

    /// A prefix or a single address; host bits may be set.
    pub(crate) fn net(&mut self, path: &Path<'_>, net: &IpNetText) {
        if net.plain().is_none() {
            let written = |meant: IpNet| if net.has_length() { meant.to_string() } else { meant.addr().to_string() };
            let near = net.interface().map(written);
            let expected = "an IP prefix such as 10.0.0.0/8, or an address".to_owned();
            self.push(path, format!("{:?}", net.as_str()), expected, near);
        }
    }

    /// A prefix; host bits may be set.
    pub(crate) fn prefix(&mut self, path: &Path<'_>, net: &IpNetText) {
        if net.plain().is_none() || !net.has_length() {
            let near = net.interface().map(|meant| meant.to_string());
            let expected = "an IP prefix such as 10.0.0.0/8 or 10.0.0.1/32".to_owned();
            self.push(path, format!("{:?}", net.as_str()), expected, near);
        }
    }

    /// A prefix without host bits; of one family, if one is given.
    pub(crate) fn masked(&mut self, path: &Path<'_>, net: &IpNetText, family: Option<Family>) {
        let meant = net.net().filter(|meant| family.is_none_or(|family| Family::of_net(*meant) == family));
        if meant.is_none() || !net.has_length() || net.plain() != meant {
            let expected = match family {
                Some(family) => format!("an {family} prefix without host bits"),
                None => "an IP prefix without host bits, such as 10.0.0.0/8".to_owned(),
            };
            self.push(path, format!("{:?}", net.as_str()), expected, meant.map(|meant| meant.to_string()));
        }
    }

    /// Every one is a prefix or an address.
    pub(crate) fn nets(&mut self, path: &Path<'_>, nets: &[IpNetText]) {
        for (i, net) in nets.iter().enumerate() {
            self.net(&path.index(i), net);
        }
    }

    /// A prefix or address of one family, if not empty; host bits may be set.
    pub(crate) fn net_of(&mut self, path: &Path<'_>, net: &IpNetText, family: Family) {
        if !net.is_empty() && net.plain().map(Family::of_net) != Some(family) {
            self.wrong(
                path,
                format!("{:?}", net.as_str()),
                format!("an {family} address with or without prefix length"),
            );
        }
    }

    /// An address, if not empty; of one family, if one is given.
    pub(crate) fn ip(&mut self, path: &Path<'_>, value: &str, family: Option<Family>) {
        if value.is_empty() {
            return;
        }
        let found = value.parse::<IpAddr>().ok().map(Family::of);
        if found.is_none() || family.is_some_and(|f| found != Some(f)) {
            let what = family.map_or("IP".to_owned(), |f| f.to_string());
            self.wrong(path, format!("{value:?}"), format!("an {what} address"));
        }
    }

    /// An interface name of at most 15 bytes, if not empty.
    pub(crate) fn interface(&mut self, path: &Path<'_>, value: &str, also: &str) {
        if !value.is_empty() && !text::is_interface(value, also) {
            self.wrong(path, format!("{value:?}"), "an interface name: 1 to 15 of letters, digits, '_', '.' and '-'");
        }
    }

    /// A regular expression.
    pub(crate) fn regex(&mut self, path: &Path<'_>, value: &str) {
        if regex::Regex::new(value).is_err() {
            self.wrong(path, format!("{value:?}"), "a regular expression");
        }
    }
}

/// The range that text such as `80-90` stands for, as upstream writes it.
fn range_meant(text: &str) -> Option<String> {
    let range: PortRange = text.replacen('-', ":", 1).parse().ok()?;
    Some(range.to_string())
}
