//! Output through a template in the language of Go, over the same names that upstream's structures have.
//!
//! Names of fields are given in every spelling that a template may use: as in YAML (`cidr`) and as in Go (`CIDR`).

use std::cell::RefCell;
use std::collections::HashMap;

use anyhow::{Result, anyhow};
use gtmpl::{Context, Func, FuncError, Template, Value};
use serde_json::Value as Json;
use tortie_api::{API_VERSION, Kind, Resource};

use super::{Found, actions};

/// Words that Go spells in capitals at the start of a name.
const INITIALS: [&str; 22] = [
    "ipip", "ipv4", "ipv6", "icmp", "cidrs", "cidr", "vxlan", "http", "nat", "bgp", "bpf", "uid", "api", "mtu", "dns",
    "mac", "ips", "url", "qos", "ip", "as", "id",
];

/// Flags that JSON leaves out when they are false.
const FLAGS: [(Kind, &[&str]); 4] = [
    (Kind::IpPool, &["natOutgoing", "disabled", "disableBGPExport"]),
    (Kind::GlobalNetworkPolicy, &["doNotTrack", "preDNAT", "applyOnForward"]),
    (Kind::StagedGlobalNetworkPolicy, &["doNotTrack", "preDNAT", "applyOnForward"]),
    (Kind::BgpPeer, &["keepOriginalNextHop"]),
];

/// The function through which a template prints.
const PRINT: &str = "printedAsGoDoes";

thread_local! {
    /// The cluster's AS number for the template's `config`; functions of a template can't hold anything themselves.
    static AS_NUMBER: RefCell<String> = const { RefCell::new(String::new()) };
}

pub(super) fn render(text: &str, found: &[Found], as_number: &dyn Fn() -> String) -> Result<String> {
    let wrong = |error: String| anyhow!("the template can't be used: {error}");
    let mut template = Template::default();
    let functions: [(&str, Func); 4] =
        [("join", join), ("joinAndTruncate", join_and_truncate), ("config", config), (PRINT, printed)];
    template.add_funcs(&functions);
    template.parse(actions::through(PRINT, text).map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
    if text.contains("config") {
        AS_NUMBER.set(as_number());
    }
    let all: Vec<Value> = found.iter().map(value).collect();
    let text = template.render(&Context::from(Value::Array(all))).map_err(|error| wrong(error.to_string()))?;
    // What is left out in JSON is an empty text in upstream's structures.
    Ok(text.replace(&Value::NoValue.to_string(), ""))
}

fn value(found: &Found) -> Value {
    match found {
        Found::One(resource) => object(resource),
        Found::List { kind, items, revision } => {
            let text = |text: &str| Value::String(text.to_owned());
            let version = HashMap::from([("ResourceVersion".to_owned(), text(revision))]);
            let kind_and_version = type_meta(&format!("{kind}List"));
            let mut members = kind_and_version.clone();
            members.insert("TypeMeta".to_owned(), Value::Map(kind_and_version));
            members.insert("ListMeta".to_owned(), Value::Map(version));
            members.insert("Items".to_owned(), Value::Array(items.iter().map(object).collect()));
            Value::Map(members)
        }
    }
}

fn type_meta(kind: &str) -> HashMap<String, Value> {
    HashMap::from([
        ("Kind".to_owned(), Value::String(kind.to_owned())),
        ("APIVersion".to_owned(), Value::String(API_VERSION.to_owned())),
    ])
}

fn object(resource: &Resource) -> Value {
    let mut json = resource.to_value();
    if let Some(Json::Object(spec)) = json.get_mut("spec") {
        for flag in FLAGS.iter().filter(|(kind, _)| *kind == resource.kind()).flat_map(|(_, flags)| *flags) {
            spec.entry(*flag).or_insert(Json::Bool(false));
        }
    }
    let Value::Map(mut members) = convert(json, false) else { return Value::Nil };
    let metadata = members.get("metadata").cloned().unwrap_or(Value::Nil);
    // Go lets the fields of an embedded structure be named without it.
    if let Value::Map(fields) = &metadata {
        for (name, field) in fields.iter().filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase())) {
            members.entry(name.clone()).or_insert_with(|| field.clone());
        }
    }
    members.insert("ObjectMeta".to_owned(), metadata);
    let kind_and_version = type_meta(resource.kind().name());
    members.insert("TypeMeta".to_owned(), Value::Map(kind_and_version.clone()));
    members.extend(kind_and_version);
    Value::Map(members)
}

/// `verbatim`: the names are the user's own, as in labels.
fn convert(json: Json, verbatim: bool) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(truth),
        Json::String(text) => Value::String(text),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(float)) => Value::from(float),
            (None, None) => Value::String(number.to_string()),
        },
        Json::Array(items) => Value::Array(items.into_iter().map(|item| convert(item, false)).collect()),
        Json::Object(members) => {
            let mut map = HashMap::new();
            for (name, member) in members {
                let own_names = matches!(name.as_str(), "labels" | "annotations" | "labelsToApply" | "matchLabels");
                let member = convert(member, own_names);
                if !verbatim {
                    map.insert(go_name(&name), member.clone());
                }
                map.insert(name, member);
            }
            Value::Map(map)
        }
    }
}

/// `natOutgoing` as Go spells it: `NATOutgoing`.
fn go_name(name: &str) -> String {
    for initial in INITIALS {
        if let Some(rest) = name.strip_prefix(initial)
            && rest.chars().next().is_none_or(|next| next.is_ascii_uppercase())
        {
            let capital = match initial {
                "ipv4" => "IPv4".to_owned(),
                "ipv6" => "IPv6".to_owned(),
                "cidrs" => "CIDRs".to_owned(),
                "ips" => "IPs".to_owned(),
                _ => initial.to_ascii_uppercase(),
            };
            return capital + rest;
        }
    }
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

fn text(value: &Value) -> String {
    match value {
        Value::Nil | Value::NoValue => String::new(),
        other => other.to_string(),
    }
}

fn joined(items: Option<&Value>, separator: &str) -> String {
    match items {
        None | Some(Value::Nil | Value::NoValue) => String::new(),
        Some(Value::Array(items)) => items.iter().map(text).collect::<Vec<_>>().join(separator),
        Some(Value::Map(members)) => {
            let mut pairs: Vec<String> = members.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
            pairs.sort();
            pairs.join(separator)
        }
        Some(one) => text(one),
    }
}

fn printed(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::String(args.last().map_or_else(String::new, |value| go_text(value, false))))
}

/// As Go's `%v` prints: `map[a:1 b:[x y]]`, keys in order. Of the spellings of a field, the one of YAML is shown.
fn go_text(value: &Value, inside: bool) -> String {
    match value {
        Value::NoValue => String::new(),
        Value::Nil if inside => "<nil>".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| go_text(item, true)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(members) | Value::Object(members) => {
            let resource = members.contains_key("TypeMeta") && members.contains_key("ObjectMeta");
            let other = |name: &str| {
                let lower = members.keys().any(|key| key != name && go_name(key) == name);
                lower || resource && name.starts_with(|c: char| c.is_ascii_uppercase())
            };
            let mut shown: Vec<_> = members.iter().filter(|(name, _)| !other(name)).collect();
            shown.sort_by_key(|(name, _)| *name);
            let shown: Vec<String> =
                shown.iter().map(|(name, value)| format!("{name}:{}", go_text(value, true))).collect();
            format!("map[{}]", shown.join(" "))
        }
        Value::Nil | Value::Bool(_) | Value::String(_) | Value::Function(_) | Value::Number(_) => value.to_string(),
    }
}

fn join(args: &[Value]) -> Result<Value, FuncError> {
    let separator = args.get(1).map(text).unwrap_or_default();
    Ok(Value::String(joined(args.first(), &separator)))
}

fn join_and_truncate(args: &[Value]) -> Result<Value, FuncError> {
    let separator = args.get(1).map(text).unwrap_or_default();
    let most = args.get(2).map(text).and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
    let mut whole = joined(args.first(), &separator);
    if most > 3 && whole.chars().count() > most {
        whole = whole.chars().take(most - 3).collect::<String>() + "...";
    }
    Ok(Value::String(whole))
}

fn config(args: &[Value]) -> Result<Value, FuncError> {
    match args.first().map(|name| text(name).to_ascii_lowercase()).as_deref() {
        Some("asnumber") => Ok(Value::String(AS_NUMBER.with_borrow(Clone::clone))),
        _ => Err(FuncError::Generic("config knows \"asnumber\" alone".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_as_in_go() {
        for (name, go) in [
            ("cidr", "CIDR"),
            ("natOutgoing", "NATOutgoing"),
            ("ipipMode", "IPIPMode"),
            ("vxlanMode", "VXLANMode"),
            ("asNumber", "ASNumber"),
            ("assignmentMode", "AssignmentMode"),
            ("ipv4Address", "IPv4Address"),
            ("ipNetworks", "IPNetworks"),
            ("ipNATs", "IPNATs"),
            ("disableBGPExport", "DisableBGPExport"),
            ("uid", "UID"),
            ("ingress", "Ingress"),
            ("identity", "Identity"),
        ] {
            assert_eq!(go_name(name), go);
        }
    }
}
