//! The forms of names: DNS-1123, Kubernetes labels, ports and interfaces; and text that a terminal may show.

use std::borrow::Cow;

pub(crate) const DNS_SUBDOMAIN: &str = "a DNS-1123 name: lower-case letters, digits, '-' and '.', beginning and ending \
     with a letter or digit, at most 253 bytes";
pub(crate) const DNS_LABEL: &str = "a DNS-1123 label: lower-case letters, digits and '-', beginning and ending with a \
     letter or digit, at most 63 bytes";
pub(crate) const LABEL_VALUE: &str = "a label value: at most 63 of letters, digits, '-', '_' and '.', beginning and \
     ending with a letter or digit";

/// Text for a terminal, which control characters would steer: they are escaped, as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

/// As [`printable`], for text of several lines: their ends stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    shown(text, |c| c == '\n')
}

fn shown(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !kept(c);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let escape = |into: String, c: char| {
        if steers(c) { into + &c.escape_default().to_string() } else { into + c.encode_utf8(&mut [0; 4]) }
    };
    Cow::Owned(text.chars().fold(String::new(), escape))
}

fn is_dns_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS-1123 subdomain, as upstream's pattern has it (parts may exceed 63 bytes).
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

/// A DNS-1123 label.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// A policy's name: one or two parts.
pub(crate) fn is_policy_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').count() <= 2 && text.split('.').all(is_dns_part)
}

fn is_word(text: &str, limit: usize) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= limit && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().next_back())
}

/// A qualified name of Kubernetes, the key of a label or annotation: an optional DNS prefix and `/`, then a word.
pub(crate) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_word(name, 63),
        None => is_word(text, 63),
    }
}

/// The value of a label.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text, 63)
}

/// A port name of Kubernetes: at most 15 of lower-case letters, digits and single inner '-', with a letter.
pub(crate) fn is_port_name(text: &str) -> bool {
    text.len() <= 15 && is_dns_part(text) && !text.contains("--") && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// An interface name, whose bytes may also be those of `also`.
pub(crate) fn is_interface(text: &str, also: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c) || also.contains(c);
    (1..=15).contains(&text.len()) && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}é"), "a\\u{1b}[2Jb\\n\\u{9b}é");
        assert_eq!(printable_lines("a\u{1b}\nb\r\n"), "a\\u{1b}\nb\\r\n");
        assert!(matches!(printable("plain é"), Cow::Borrowed(_)));
    }

    #[test]
    fn names_follow_their_patterns() {
        for good in ["a", "a-b.c", "0", "node1.example.com"] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.-b"] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
        assert!(is_policy_name("tier.policy") && !is_policy_name("a.b.c"));
        assert!(
            is_qualified_name("projectcalico.org/Name_1") && !is_qualified_name("/a") && !is_qualified_name("a/b/c")
        );
        assert!(is_label_value("") && !is_label_value("-a"));
        assert!(is_port_name("http-2") && !is_port_name("80") && !is_port_name("a--b"));
        assert!(is_interface("eth0.1", "") && !is_interface("*", "") && is_interface("*", "*"));
    }
}
