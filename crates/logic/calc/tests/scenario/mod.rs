//! The file format of scenarios.
//!
//! Sections start with `=== `: `apply` (YAML; `apply-unchecked` skips validation), `kubernetes` (YAML of Kubernetes), `delete` (`KIND [NAMESPACE/]NAME` a line), `store` (`KEY JSON` or
//! `KEY -` a line), `packets` (`INTERFACE SOURCE DESTINATION PROTOCOL [PORT]` a line, then the verdict). Sections up to
//! and with `tables` form a step; `tables` and verdicts are what the run yields.

pub mod check;
#[path = "../kubernetes/mod.rs"]
pub mod kubernetes;
pub mod packets;
pub mod run;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tortie_api::{Kind, manifest};
use tortie_facts::{Key, Revision, Update, Value};

/// The node on which every scenario plays.
pub const NODE: &str = "n1";

/// The facts at some point.
pub type Facts = BTreeMap<Key, Value>;

/// One step: what changes, and what is then expected.
pub struct Step {
    /// Every section but `tables` and `packets`, as written.
    source: Vec<(String, String)>,
    /// The changes, in order.
    pub updates: Vec<Update>,
    /// Questions about packets, without the verdicts.
    pub packets: Vec<String>,
    /// The tables as printed.
    pub tables: String,
    /// The lines of packets with their verdicts.
    pub verdicts: String,
}

/// What a run yields after one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The tables as printed.
    pub tables: String,
    /// The lines of packets with their verdicts.
    pub verdicts: String,
}

/// A whole file.
pub struct Scenario {
    title: String,
    /// The steps in order.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// Reads a file; panics with the file's name on anything unexpected.
    pub fn parse(file: &str, text: &str) -> Scenario {
        let mut parts = text.split("=== ");
        let title = parts.next().expect("split yields one part at least").to_owned();
        let mut steps: Vec<Step> = Vec::new();
        let mut open = false;
        for part in parts {
            let (section, body) = part.split_once('\n').unwrap_or((part, ""));
            if !open && section != "packets" {
                steps.push(Step {
                    source: vec![],
                    updates: vec![],
                    packets: vec![],
                    tables: String::new(),
                    verdicts: String::new(),
                });
            }
            let step = steps.last_mut().unwrap_or_else(|| panic!("{file}: packets before any tables"));
            open = !matches!(section, "tables" | "packets");
            match section {
                "tables" => step.tables = body.to_owned(),
                "packets" => {
                    step.verdicts = body.to_owned();
                    step.packets = body.lines().map(packets::question).collect();
                }
                _ => {
                    step.updates.extend(updates(file, section, body));
                    step.source.push((section.to_owned(), body.to_owned()));
                }
            }
        }
        Scenario { title, steps }
    }

    /// The file again, with these outcomes.
    pub fn print(&self, outcomes: &[Outcome]) -> String {
        let mut out = self.title.clone();
        for (step, Outcome { tables, verdicts }) in self.steps.iter().zip(outcomes) {
            for (section, body) in &step.source {
                write!(out, "=== {section}\n{body}").expect("writing to a string");
            }
            write!(out, "=== tables\n{tables}").expect("writing to a string");
            if !step.packets.is_empty() {
                write!(out, "=== packets\n{verdicts}").expect("writing to a string");
            }
        }
        out
    }

    /// Whether the node is started with `routeSource: WorkloadIPs`: if the title says so.
    pub fn workload_routes(&self) -> bool {
        self.title.contains("routeSource: WorkloadIPs")
    }

    /// Whether the node's policy goes into iptables: if the title says so.
    pub fn iptables(&self) -> bool {
        self.title.contains("iptables")
    }

    /// The facts after each step.
    pub fn states(&self) -> Vec<Facts> {
        let mut facts = Facts::new();
        let mut out = Vec::new();
        for step in &self.steps {
            for Update { key, value, revision: _ } in &step.updates {
                match value {
                    Some(value) => facts.insert(key.clone(), value.clone()),
                    None => facts.remove(key),
                };
            }
            out.push(facts.clone());
        }
        out
    }
}

/// An update of no particular revision.
pub fn update(key: Key, value: Option<Value>) -> Update {
    Update { key, value, revision: Revision(1) }
}

fn updates(file: &str, section: &str, body: &str) -> Vec<Update> {
    let lines = || body.lines().filter(|line| !line.trim().is_empty());
    match section {
        "apply" | "apply-unchecked" => {
            let parse = if section == "apply" { manifest::parse } else { manifest::parse_unchecked };
            let mut resources = parse(file, body).unwrap_or_else(|error| panic!("{file}: {error}"));
            for resource in &mut resources {
                resource.apply_defaults();
            }
            let of = |resource: tortie_api::Resource| {
                let metadata = resource.metadata();
                let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
                update(key, Some(Value::resource(resource)))
            };
            resources.into_iter().map(of).collect()
        }
        "kubernetes" => kubernetes::documents(body)
            .iter()
            .map(|object| {
                let resource = kubernetes::resource(object).unwrap_or_else(|error| panic!("{file}: {error}"));
                let metadata = resource.metadata();
                update(
                    Key::resource(resource.kind(), &metadata.namespace, &metadata.name),
                    Some(Value::resource(resource)),
                )
            })
            .collect(),
        "delete" => lines()
            .map(|line| {
                let (kind, name) = line.split_once(' ').unwrap_or_else(|| panic!("{file}: {line:?} is no KIND NAME"));
                let internal = Kind::INTERNAL.iter().find(|known| known.name() == kind).copied();
                let kind = internal.map_or_else(|| Kind::from_text(kind), Ok);
                let kind = kind.unwrap_or_else(|error| panic!("{file}: {error}"));
                let (namespace, name) = name.split_once('/').unwrap_or(("", name));
                update(Key::resource(kind, namespace, name), None)
            })
            .collect(),
        "store" => lines()
            .map(|line| {
                let (path, json) = line.split_once(' ').unwrap_or_else(|| panic!("{file}: {line:?} is no KEY JSON"));
                let key = Key::from_path(path).unwrap_or_else(|error| panic!("{file}: {error}"));
                let read = |json| Value::from_json(&key, json).unwrap_or_else(|error| panic!("{file}: {error}"));
                let value = (json != "-").then(|| read(json));
                update(key.clone(), value)
            })
            .collect(),
        other => panic!("{file}: there is no section {other:?}"),
    }
}
