//! Rules of policies that nobody here uses, small: their JSON with common and repeated texts as single bytes.
//!
//! A node reads every policy of the cluster, and most select none of its endpoints.

use std::io;
use std::sync::{Arc, LazyLock};

use hashbrown::HashSet;
use serde::Serialize as _;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use tortie_api::Rule;

/// Texts that stand in most rules.
const COMMON: [&str; 32] = [
    "action",
    "Allow",
    "Deny",
    "Pass",
    "Log",
    "source",
    "destination",
    "selector",
    "namespaceSelector",
    "notSelector",
    "protocol",
    "notProtocol",
    "TCP",
    "UDP",
    "SCTP",
    "ICMP",
    "ICMPv6",
    "icmp",
    "type",
    "code",
    "nets",
    "notNets",
    "ports",
    "notPorts",
    "ipVersion",
    "serviceAccounts",
    "services",
    "names",
    "name",
    "namespace",
    "all()",
    "0.0.0.0/0",
];
/// The places of common texts of each length.
static COMMON_BY_LENGTH: LazyLock<Vec<Vec<usize>>> = LazyLock::new(|| {
    let longest = COMMON.iter().map(|text| text.len()).max().unwrap_or(0);
    (0..=longest).map(|length| (0..COMMON.len()).filter(|at| COMMON[*at].len() == length).collect()).collect()
});
/// The byte of the first common text; no JSON has such bytes outside of texts.
const FIRST_COMMON: u8 = 0x80;
/// The byte of the policy's own selector, which is kept elsewhere.
const SELECTOR: u8 = 0xbf;
/// The byte of the first text of this policy; the others follow as they come.
const FIRST_OWN: u8 = 0xc0;
const MOST_OWN: usize = 0x40;

/// Rules for ingress and egress. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Packed(Arc<[u8]>);

impl Packed {
    /// `selector`: a text that is kept elsewhere, maybe written in another way of the same meaning; empty: none.
    pub(crate) fn new(selector: &str, ingress: &[Rule], egress: &[Rule]) -> Packed {
        if ingress.is_empty() && egress.is_empty() {
            return Packed::default();
        }
        let mut out = Vec::with_capacity(128);
        let shorten = Shorten { selector: in_json(selector), text: Vec::new(), own: Vec::new(), ends: Vec::new() };
        let mut writer = serde_json::Serializer::with_formatter(&mut out, shorten);
        (ingress, egress).serialize(&mut writer).expect("plain structs with text keys always serialise");
        Packed(out.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the rules repeat the policy's own selector.
    pub(crate) fn has_selector(&self) -> bool {
        let mut rest = self.bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = match *first {
                SELECTOR => return true,
                b'"' => after.get(length_of_text(after) + 1..).unwrap_or_default(),
                _ => after,
            };
        }
        false
    }

    /// The rules for ingress and for egress.
    pub(crate) fn rules(&self, selector: &str) -> (Vec<Rule>, Vec<Rule>) {
        let mut rest = self.bytes();
        if rest.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let (mut json, mut own) = (Vec::with_capacity(4 * rest.len()), Vec::new());
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match *first {
                b'"' => {
                    let (text, after) = after.split_at(length_of_text(after));
                    rest = after.get(1..).unwrap_or_default();
                    own.push(text);
                    put(&mut json, text);
                }
                SELECTOR => put(&mut json, &in_json(selector)),
                byte @ FIRST_OWN.. => put(&mut json, own[usize::from(byte - FIRST_OWN)]),
                byte @ FIRST_COMMON..SELECTOR => {
                    put(&mut json, COMMON[usize::from(byte - FIRST_COMMON)].as_bytes());
                }
                byte => json.push(byte),
            }
        }
        serde_json::from_slice(&json).expect("rules were packed")
    }
}

/// A text as JSON writes it, without its quotes.
fn in_json(text: &str) -> Vec<u8> {
    // Most selectors: nothing in them is written in another way.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return text.as_bytes().to_vec();
    }
    let mut json = serde_json::to_vec(text).expect("a text always serialises");
    json.pop();
    json.drain(..1);
    json
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// How long a JSON text is, up to the quote that ends it.
fn length_of_text(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Writes JSON with single bytes for texts that have one.
struct Shorten {
    /// The policy's own, as JSON writes it.
    selector: Vec<u8>,
    /// The text that is being written.
    text: Vec<u8>,
    /// The texts of this policy, one after the other, and where each ends.
    own: Vec<u8>,
    ends: Vec<usize>,
}

impl Shorten {
    /// The byte that stands for the text, if one does.
    fn short(&self) -> Option<u8> {
        if !self.text.is_empty() && self.text == self.selector {
            return Some(SELECTOR);
        }
        let of_length = COMMON_BY_LENGTH.get(self.text.len()).map_or(&[][..], Vec::as_slice);
        let common = of_length.iter().find(|at| COMMON[**at].as_bytes() == self.text).map(|at| (FIRST_COMMON, *at));
        let starts = std::iter::once(&0).chain(&self.ends);
        let mut own = starts.zip(&self.ends).take(MOST_OWN).map(|(start, end)| &self.own[*start..*end]);
        let (first, at) = common.or_else(|| own.position(|known| known == self.text).map(|at| (FIRST_OWN, at)))?;
        Some(first + u8::try_from(at).expect("both lists are short"))
    }
}

impl Formatter for Shorten {
    fn begin_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.text.clear();
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, fragment: &str) -> io::Result<()> {
        self.text.extend_from_slice(fragment.as_bytes());
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, _: &mut W, escape: CharEscape) -> io::Result<()> {
        CompactFormatter.write_char_escape(&mut self.text, escape)
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if let Some(byte) = self.short() {
            return writer.write_all(&[byte]);
        }
        self.own.extend_from_slice(&self.text);
        self.ends.push(self.own.len());
        writer.write_all(b"\"")?;
        writer.write_all(&self.text)?;
        writer.write_all(b"\"")
    }
}

/// When so many are remembered, all are forgotten.
const MOST: usize = 512;

/// Everything that decides whether rules can be used as they are written.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Written {
    pub(crate) rules: Packed,
    pub(crate) namespaced: bool,
    /// How deep the policy's own selector is nested, which the rules may repeat and join with others.
    pub(crate) depth: usize,
}

/// Rules of late that can be used as they are written: of thousands of policies, many say the same.
#[derive(Debug, Default)]
pub(crate) struct Usable(HashSet<Written>);

impl Usable {
    /// The copy that is kept, if these were found right.
    pub(crate) fn find(&self, rules: &Written) -> Option<Packed> {
        self.0.get(rules).map(|known| known.rules.clone())
    }

    /// These were found right.
    pub(crate) fn note(&mut self, rules: Written) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(rules);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rules(texts: &[String]) -> Vec<Rule> {
        let rule = |(at, text): (usize, &String)| {
            let json = json!({
                "action": (["Allow", "Deny", "Pass", "Log"][at % 4]),
                "protocol": "TCP",
                "source": { "selector": text, "namespaceSelector": "all()", "notNets": ["0.0.0.0/0", "::/0"] },
                "destination": { "ports": [80, "8080:8090", "http"], "serviceAccounts": { "names": [text] } },
                "metadata": { "annotations": { text.clone(): "\u{80}\u{ff}\"\\" } },
            });
            serde_json::from_value(json).expect("a rule")
        };
        texts.iter().enumerate().map(rule).collect()
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read(
            ingress in prop::collection::vec("[a-c\"\\\\é\u{1}]{0,3}", 0..80),
            egress in prop::collection::vec(".{0,12}", 0..3),
        ) {
            let selector = ingress.first().cloned().unwrap_or_default();
            let (ingress, egress) = (rules(&ingress), rules(&egress));
            let packed = Packed::new(&selector, &ingress, &egress);
            prop_assert_eq!(packed.has_selector(), !selector.is_empty());
            prop_assert_eq!(packed.rules(&selector), (ingress, egress));
        }
    }

    #[test]
    fn another_way_to_write_the_selector_is_read_as_it_is_kept() {
        let rules = rules(&["a  ==  'b'".to_owned()]);
        let (read, _) = Packed::new("a  ==  'b'", &rules, &[]).rules(r#"a == "b""#);
        assert_eq!(read[0].source.selector, r#"a == "b""#);
    }

    #[test]
    fn a_usual_policy_is_small() {
        let own = "pcns.projectcalico.org/name == 'customer-1234'";
        let rule = |end: &str| json!({ "action": "Allow", end: { "selector": own } });
        let read = |json| serde_json::from_value::<Vec<Rule>>(json).expect("rules");
        let packed = Packed::new(own, &read(json!([rule("source")])), &read(json!([rule("destination")])));
        assert!(packed.bytes().len() < 40, "{} bytes", packed.bytes().len());
        assert!(Packed::new("", &[], &[]).bytes().is_empty());
    }
}
