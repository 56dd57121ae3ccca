//! The table of hand-worked cases: resources, packets, and what the documents say must happen.
//!
//! Each file of `tests/oracle` holds worlds; none of what is expected is ever written by a program. A line of a world's
//! cases is `DIRECTION POD from|to OTHER PROTOCOL [PORT] => VERDICT PLACE -- RULE`: the direction is `ingress`, `egress`,
//! or `path` for both ends in turn; the place is `POLICY#RULE` or `profile NAME#RULE` (rules from 0, as resolved),
//! `end of TIER`, or `nothing`; the rule names the documented sentence from which the case was worked.

#[path = "kubernetes/mod.rs"]
mod kubernetes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};
use tortie_api::{Resource, manifest};
use tortie_calc::{Calculator, Overrides};
use tortie_desired::{EndpointId, Tables};
use tortie_facts::{Key, Revision, Update, Value as Fact};
use tortie_net::Protocol;
use tortie_verdict::{
    Direction, Packet, Place, Source, Step, Target, Verdict, evaluate, evaluate_endpoint, with_staged,
};

const NODE: &str = "n1";

struct Pod {
    id: EndpointId,
    interface: String,
    addresses: Vec<IpAddr>,
}

struct World {
    title: String,
    tables: Tables,
    staged: Tables,
    pods: BTreeMap<String, Pod>,
}

fn labels<'a>(words: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    words.filter_map(|word| word.split_once('=')).map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

/// `NAMESPACE/NAME ADDRESS[,ADDRESS] [LABEL=VALUE | :port=NAME/PROTOCOL/NUMBER | :sa=NAME]...`
fn pod(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let (namespace, name) = words.next().and_then(|id| id.split_once('/')).unwrap_or_else(|| panic!("{line}"));
    let ips: Vec<Value> = words.next().expect("an address").split(',').map(|ip| json!({ "ip": ip })).collect();
    let (special, plain): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with(':'));
    let mut account = "default";
    let mut ports = Vec::new();
    for word in special {
        match word.split_once('=') {
            Some((":sa", name)) => account = name,
            Some((":port", port)) => {
                let [name, protocol, number] = port.split('/').collect::<Vec<_>>().try_into().expect("three parts");
                let number: u16 = number.parse().expect("a port");
                ports.push(json!({ "name": name, "protocol": protocol, "containerPort": number }));
            }
            _ => panic!("{line}: {word}"),
        }
    }
    json!({
        "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": labels(plain.into_iter()) },
        "spec": { "nodeName": NODE, "serviceAccountName": account, "containers": [{ "ports": ports }] },
        "status": { "phase": "Running", "podIPs": ips },
    })
}

fn namespace(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a name");
    json!({ "kind": "Namespace", "metadata": { "name": name, "labels": labels(words) } })
}

fn account(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let (namespace, name) = words.next().and_then(|id| id.split_once('/')).expect("NAMESPACE/NAME");
    let metadata = json!({ "name": name, "namespace": namespace, "labels": labels(words) });
    json!({ "kind": "ServiceAccount", "metadata": metadata })
}

fn resources(file: &str, section: &str, body: &str) -> Vec<Resource> {
    let lines = || body.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let converted = |object: &Value| kubernetes::resource(object).unwrap_or_else(|error| panic!("{file}: {error}"));
    match section {
        "pods" => lines().map(|line| converted(&pod(line))).collect(),
        "namespaces" => lines().map(|line| converted(&namespace(line))).collect(),
        "accounts" => lines().map(|line| converted(&account(line))).collect(),
        "kubernetes" => kubernetes::documents(body).iter().map(converted).collect(),
        "calico" => {
            let mut found = manifest::parse(file, body).unwrap_or_else(|error| panic!("{error}"));
            found.iter_mut().for_each(Resource::apply_defaults);
            found
        }
        other => panic!("{file}: there is no section {other:?}"),
    }
}

impl World {
    fn of(title: &str, resources: &[Resource]) -> World {
        let mut calculator = Calculator::new(NODE, Overrides::default());
        let mut pods = BTreeMap::new();
        for resource in resources {
            let metadata = resource.metadata();
            if let Resource::WorkloadEndpoint(endpoint) = resource {
                let id =
                    EndpointId { namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() };
                let addresses = endpoint.spec.ip_networks.iter().filter_map(tortie_api::IpNetText::addr).collect();
                let interface = endpoint.spec.interface_name.clone();
                pods.insert(format!("{}/{}", metadata.namespace, endpoint.spec.pod), Pod { id, interface, addresses });
            }
            let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
            calculator.apply(Update { key, value: Some(Fact::resource(resource.clone())), revision: Revision(1) });
        }
        calculator.in_sync();
        let mut tables = Tables::default();
        tables.apply(&calculator.flush());
        assert!(calculator.problems().is_empty(), "{title}: {:?}", calculator.problems());
        World { title: title.to_owned(), staged: with_staged(&tables), tables, pods }
    }

    fn addr(&self, who: &str, like: Option<IpAddr>) -> IpAddr {
        match self.pods.get(who) {
            Some(pod) => *pod.addresses.iter().find(|a| like.is_none_or(|l| l.is_ipv4() == a.is_ipv4())).expect("one"),
            None => who.parse().unwrap_or_else(|_| panic!("{}: {who:?} is no pod and no address", self.title)),
        }
    }

    fn verdict(&self, question: &str) -> Verdict {
        let words: Vec<&str> = question.split_whitespace().collect();
        let [way, who, to_or_from, other, protocol, rest @ ..] = words.as_slice() else {
            panic!("{}: {question:?}", self.title)
        };
        let tables = if rest.contains(&"staged") { &self.staged } else { &self.tables };
        let pod = self.pods.get(*who).unwrap_or_else(|| panic!("{}: there is no pod {who}", self.title));
        let there = other.parse().ok();
        let here = self.addr(who, there);
        let there = self.addr(other, Some(here));
        let outgoing = match *to_or_from {
            "to" => true,
            "from" => false,
            _ => panic!("{}: {question:?}", self.title),
        };
        let (src, dst) = if outgoing { (here, there) } else { (there, here) };
        let packet = packet(src, dst, protocol, rest);
        let direction = match *way {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            "path" => return evaluate(tables, &packet, Source::Interface(&pod.interface), Target::Routed),
            _ => panic!("{}: {question:?}", self.title),
        };
        assert_eq!(outgoing, direction == Direction::Egress, "{}: {question:?}", self.title);
        evaluate_endpoint(tables, &pod.id, direction, &packet).expect("a pod of this node")
    }
}

fn packet(src: IpAddr, dst: IpAddr, protocol: &str, rest: &[&str]) -> Packet {
    let port = || rest.first().and_then(|word| word.parse().ok()).expect("a port number");
    match protocol {
        "ping" => Packet::ping(src, dst),
        "icmp" => {
            let (kind, code) = rest[0].split_once('/').expect("TYPE/CODE");
            let icmp = Some((kind.parse().expect("a type"), code.parse().expect("a code")));
            Packet { icmp, ..Packet::ping(src, dst) }
        }
        "tcp" => Packet::tcp(src, 40000, dst, port()),
        "udp" => Packet::udp(src, 40000, dst, port()),
        "sctp" => Packet { protocol: Protocol::SCTP, ..Packet::tcp(src, 40000, dst, port()) },
        number => {
            let protocol = Protocol(number.parse().expect("a protocol number"));
            Packet { protocol, src_port: 0, dst_port: 0, ..Packet::tcp(src, 0, dst, 0) }
        }
    }
}

fn answer(verdict: &Verdict) -> String {
    let place = match verdict.steps.last() {
        Some(Step::Rule { endpoint: _, direction: _, place, index, action: _ }) => match place {
            Place::Policy { tier: _, policy } => format!("{policy}#{index}"),
            Place::Profile(name) => format!("profile {name}#{index}"),
        },
        Some(Step::EndOfTier { endpoint: _, direction: _, tier, action: _ }) => format!("end of {tier}"),
        Some(Step::NothingMatched { endpoint: _, direction: _ }) => "nothing".to_owned(),
        Some(other) => other.to_string(),
        None => "no step".to_owned(),
    };
    format!("{} {place}", if verdict.allowed { "allow" } else { "deny" })
}

/// Runs one file; how many cases it has, and which are wrong.
fn run(path: &Path) -> (usize, Vec<String>) {
    let file = path.file_name().expect("a file").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a readable file");
    let (mut base, mut own, mut title) = (Vec::new(), Vec::new(), String::new());
    let (mut cases, mut wrong) = (0, Vec::new());
    for part in text.split("\n=== ").skip(1) {
        let (section, body) = part.split_once('\n').unwrap_or((part, ""));
        if let Some(name) = section.strip_prefix("world ") {
            own.clear();
            name.clone_into(&mut title);
        } else if section == "cases" {
            let all: Vec<Resource> = base.iter().chain(&own).cloned().collect();
            let world = World::of(&format!("{file}: {title}"), &all);
            for line in body.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
                let (case, rule) = line.split_once(" -- ").unwrap_or_else(|| panic!("{file}: {line:?} names no rule"));
                let (question, expected) = case.split_once(" => ").unwrap_or_else(|| panic!("{file}: {line:?}"));
                let verdict = world.verdict(question);
                let found = answer(&verdict);
                cases += 1;
                if found != expected.trim() {
                    let steps: Vec<String> = verdict.steps.iter().map(ToString::to_string).collect();
                    let steps = steps.join("; ");
                    wrong.push(format!(
                        "{}: {question}: expected {expected}, found {found}\n  {rule}\n  {steps}",
                        world.title
                    ));
                }
            }
        } else {
            let found = resources(&file, section, body);
            if title.is_empty() { base.extend(found) } else { own.extend(found) }
        }
    }
    (cases, wrong)
}

#[test]
fn every_hand_worked_case_is_what_the_documents_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let entries = std::fs::read_dir(folder).expect("the folder of cases");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    let (mut cases, mut wrong) = (0, Vec::new());
    for file in files {
        let (count, found) = run(&file);
        cases += count;
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{} of {cases} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 200, "{cases} cases are left");
}
