//! The other commands: patch, label, IPAM, node status, version, completion; output formats; wrong command lines.

mod common;

use std::os::unix::net::UnixListener;

use common::addresses::{assign, first_address};
use common::{Cluster, manifest};
use serde_json::{Value, json};
use similar_asserts::assert_eq;
use tortie_cni::wire::{self, Operation, Reply, Request};

fn pool(name: &str, cidr: &str) -> String {
    manifest("IPPool", name, &format!("cidr: {cidr}"))
}

fn node(name: &str) -> String {
    manifest("Node", name, "bgp:\n  ipv4Address: 10.9.0.1/24")
}

#[test]
fn patches_of_every_type_change_one_resource() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &node("n1"));
    let ran = cluster.run_args(&["patch", "node", "n1", "-p", r#"{"spec":{"bgp":{"asNumber":64513}}}"#], "");
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully patched 1 'Node' resource\n"), "{ran:?}");
    for args in [
        ["--type", "json", "-p", r#"[{"op":"add","path":"/spec/bgp/routeReflectorClusterID","value":"1.1.1.1"}]"#],
        ["--type", "merge", "-p", "metadata: {labels: {a: b}}"],
    ] {
        let ran = cluster.run_args(&[&["patch", "node", "n1"], &args[..]].concat(), "");
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let yaml = cluster.good("get node n1 -o yaml", "");
    for part in ["asNumber: 64513", "ipv4Address: 10.9.0.1/24", "routeReflectorClusterID: 1.1.1.1", "a: b"] {
        assert!(yaml.contains(part), "{yaml}");
    }
    // A change for another revision than the one that is stored is none for this one.
    let stored: serde_json::Value = serde_json::from_str(&cluster.good("get node n1 -o json", "")).expect("JSON");
    let revision = stored["metadata"]["resourceVersion"].as_str().expect("text");
    for how in ["merge", "strategic"] {
        let labels = format!(r#""labels":{{"how":"{how}"}}"#);
        let patch = |revision: &str| format!(r#"{{"metadata":{{"resourceVersion":"{revision}",{labels}}}}}"#);
        let ran = cluster.run_args(&["patch", "node", "n1", "--type", how, "-p", &patch("1000000")], "");
        assert!(ran.code == 1 && ran.err.contains("update conflict: Node(n1)"), "{ran:?}");
    }
    let patch = format!(r#"{{"metadata":{{"resourceVersion":"{revision}","labels":{{"a":"c"}}}}}}"#);
    assert_eq!(cluster.run_args(&["patch", "node", "n1", "-p", &patch], "").code, 0);
    let ran = cluster.run_args(&["patch", "node", "n1", "-p", &patch], "");
    assert!(ran.code == 1 && ran.err.contains(&format!("metadata.resourceVersion: \"{revision}\"")), "{ran:?}");
    // What is null goes, and so does what was not there.
    for patch in [
        r#"{"metadata":{"labels":{"a":null}}}"#,
        r#"{"metadata":{"labels":{"a":null}},"spec":{"bgp":{"routeReflectorClusterID":null}}}"#,
    ] {
        for how in ["merge", "strategic"] {
            let ran = cluster.run_args(&["patch", "node", "n1", "--type", how, "-p", patch], "");
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    }
    let yaml = cluster.good("get node n1 -o yaml", "");
    assert!(!yaml.contains("labels:") && !yaml.contains("routeReflectorClusterID"), "{yaml}");
    for (patch, part) in [
        (r#"{"spec":{"bpg":{}}}"#, "did you mean \"bgp\"?"),
        (r#"{"spec":{"bpg":null}}"#, "did you mean \"bgp\"?"),
        (r#"{"spec":{"bgp":{"asNumbr":null}}}"#, "did you mean \"asNumber\"?"),
        (r#"{"spec":{"bgp":{"ipv4Address":"x"}}}"#, "spec.bgp.ipv4Address"),
        (r#"{"metadata":{"name":"n2"}}"#, "cannot be changed"),
        ("[1]", "expected a mapping"),
        ("{", "--patch"),
    ] {
        let ran = cluster.run_args(&["patch", "node", "n1", "-p", patch], "");
        assert!(ran.code == 1 && ran.err.contains(part), "{ran:?}");
    }
    assert!(cluster.bad("patch node n3 -p {}", "").contains("resource does not exist: Node(n3)"));
}

#[test]
fn labels_are_set_changed_and_removed() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &node("n1"));
    assert_eq!(cluster.good("label node n1 rack=a7", ""), "Successfully set label rack on node n1\n");
    let error = cluster.bad("label node n1 rack=a8", "");
    assert!(error.contains("key rack is already present") && error.contains("--overwrite"), "{error}");
    assert_eq!(cluster.good("label node n1 rack=a8 --overwrite", ""), "Successfully updated label rack on node n1\n");
    assert!(cluster.good("get node n1 -o yaml", "").contains("rack: a8"));
    assert_eq!(cluster.good("label node n1 rack --remove", ""), "Successfully removed label rack from node n1\n");
    assert!(cluster.bad("label node n1 rack --remove", "").contains("key rack does not exist"));
    assert!(cluster.bad("label node n1 rack", "").contains("expected KEY=VALUE"));
    assert!(cluster.bad("label node n1 a=-", "").contains("label value"));
}

#[test]
fn columns_and_templates_are_upstreams() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &(node("n1") + &pool("a", "10.0.0.0/16")));
    assert_eq!(
        cluster.good("get node -o wide", ""),
        "NAME   ASN       IPV4          IPV6   \nn1     (64512)   10.9.0.1/24          \n\n"
    );
    assert_eq!(
        cluster.good("get ippool -o custom-columns=CIDR,NAT", ""),
        "CIDR          NAT     \n10.0.0.0/16   false   \n\n"
    );
    assert!(cluster.bad("get ippool -o custom-columns=CIRD", "").contains("did you mean \"CIDR\"?"));
    let template = |text: &str| {
        let ran = cluster.run_args(&["get", "ippool", "-o", &format!("go-template={text}")], "");
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    };
    let text = "{{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{.Spec.CIDR}} {{join .Spec.AllowedUses \"+\"}} {{.Spec.BlockSize}}{{end}}{{end}}";
    assert_eq!(template(text), "a 10.0.0.0/16 Workload+Tunnel 26");
    assert_eq!(template("{{config \"asnumber\"}}"), "64512");
    let absent = "{{range .}}{{range .Items}}{{.Spec.NATOutgoing}}|{{.Spec.NamespaceSelector}}|{{end}}{{end}}";
    assert_eq!(template(absent), "false||");
    // Lists and maps are printed as Go prints them.
    assert_eq!(
        template("{{range .}}{{range .Items}}{{.spec}}{{end}}{{end}}"),
        "map[allowedUses:[Workload Tunnel] assignmentMode:Automatic blockSize:26 cidr:10.0.0.0/16 \
         disableBGPExport:false disabled:false ipipMode:Never natOutgoing:false nodeSelector:all() vxlanMode:Never]"
    );
    let whole = template("{{.}}");
    assert!(whole.starts_with("[map[APIVersion:projectcalico.org/v3 Items:[map[apiVersion:"), "{whole}");
    assert!(!whole.contains(['"', '{']), "{whole}");
    let deep = format!("go-template={{{{{}.{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
    let ran = cluster.run_args(&["get", "ippool", "-o", &deep], "");
    assert!(ran.code == 1 && ran.err.contains("parentheses are nested deeper than 100"), "{}", ran.err);
    let file = cluster.file("t", "{{range .}}{{.Kind}}:{{.Spec.CIDR}}{{end}}");
    assert_eq!(cluster.good(&format!("get ippool a -o go-template-file={file}"), ""), "IPPool:10.0.0.0/16");
    assert!(cluster.bad("get ippool -o go-template={{.x", "").contains("template"));
    assert!(cluster.bad("get ippool -o jsn", "").contains("did you mean \"json\"?"));
}

#[test]
fn ipam_is_shown_checked_and_changed() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &(node("n1") + &pool("a", "10.0.0.0/24") + &pool("b", "fd00:1::/64")));
    assign(&cluster, "n1", "h1", 3);
    let shown = "\
+----------+-------------+------------+------------+--------------+-------------------+
| GROUPING |    CIDR     | IPS TOTAL  | IPS IN USE | IPS RESERVED |     IPS FREE      |
+----------+-------------+------------+------------+--------------+-------------------+
| IP Pool  | 10.0.0.0/24 |        256 |     3 (1%) |       0 (0%) |         253 (99%) |
| IP Pool  | fd00:1::/64 | 1.8447e+19 |     0 (0%) |       0 (0%) | 1.8447e+19 (100%) |
+----------+-------------+------------+------------+--------------+-------------------+
";
    assert_eq!(cluster.good("ipam show", ""), shown);
    let blocks = cluster.good("ipam show --show-blocks", "");
    assert!(blocks.contains("| Block    | 10.0.0."), "{blocks}");
    let address = first_address(&cluster);
    let who = cluster.good(&format!("ipam show --ip={address}"), "");
    assert_eq!(
        who,
        format!(
            "IP {address} is in use\nHandle ID: h1\nActive Owner Attributes:\n  namespace: prod\n  node: n1\n  pod: web\n"
        )
    );
    assert_eq!(cluster.good("ipam show --ip 10.0.9.9", ""), "10.0.9.9 is not assigned\n");
    assert!(cluster.bad("ipam show --ip 10.0.9", "").contains("invalid IP address specified: 10.0.9"));
    let empty = cluster.good("ipam show --show-borrowed", "");
    assert!(empty.contains("BORROWING-NODE"), "{empty}");
    let check = cluster.good("ipam check --show-problem-ips", "");
    assert!(check.contains("Found 3 IPs that are allocated in IPAM but not actually in use."), "{check}");
    assert!(check.contains("pod prod/web on n1 (handle h1)") && check.ends_with("found 3 problems.\n"), "{check}");
    let report = cluster.path("report.json").to_str().expect("UTF-8").to_owned();
    cluster.good(&format!("ipam check -o {report}"), "");
    assert_eq!(
        cluster.good(&format!("ipam release --ip {address}"), ""),
        format!("Successfully released IP address {address}\n")
    );
    assert_eq!(
        cluster.bad(&format!("ipam release --ip {address}"), ""),
        format!("IP address {address} is not assigned\n")
    );
    assert!(cluster.bad(&format!("ipam release --from-report {report}"), "").contains("not locked"));
    let ran = cluster.run(&format!("ipam release --force --from-report {report}"), "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("Released 2 IPs successfully") && ran.out.contains("1 of them"), "{ran:?}");
    assert!(cluster.good("ipam check", "").ends_with("found 0 problems.\n"));
}

#[test]
fn ipam_is_shown_as_json() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &(node("n1") + &pool("a", "10.0.0.0/24") + &pool("b", "fd00:1::/64")));
    assign(&cluster, "n1", "h1", 3);
    let shown = |args: &str| -> Value {
        serde_json::from_str(&cluster.good(format!("ipam show -o json {args}").trim(), "")).expect("it is JSON")
    };
    let pools = json!([
        {"name": "a", "cidr": "10.0.0.0/24", "blocks": null,
         "ips": {"total": "256", "inUse": "3", "reserved": "0", "free": "253"}},
        {"name": "b", "cidr": "fd00:1::/64", "blocks": null,
         "ips": {"total": "18446744073709551616", "inUse": "0", "reserved": "0", "free": "18446744073709551616"}},
    ]);
    assert_eq!(shown(""), json!({"pools": pools}));
    let blocks = &shown("--show-blocks")["pools"][0]["blocks"];
    assert_eq!(blocks[0]["ips"], json!({"total": "64", "inUse": "3", "reserved": "0", "free": "61"}), "{blocks}");
    let address = first_address(&cluster);
    let who = shown(&format!("--ip {address}"));
    assert_eq!((&who["ip"], &who["inUse"]), (&json!(address), &json!(true)), "{who}");
    assert!(who["allocation"].to_string().contains("h1"), "{who}");
    assert_eq!(shown("--ip 10.0.9.9"), json!({"ip": "10.0.9.9", "inUse": false, "allocation": null}));
    assert_eq!(shown("--show-borrowed"), json!({"borrowed": [], "withoutNode": 0}));
    let settings = json!({
        "strictAffinity": false, "autoAllocateBlocks": true, "maxBlocksPerHost": 0,
        "kubeVirtVMAddressPersistence": null, "ipCooldownSeconds": 0,
    });
    assert_eq!(shown("--show-configuration"), settings);
}

#[test]
fn ipam_settings_are_changed_in_both_places() {
    let cluster = Cluster::new();
    cluster.good(
        "create -f -",
        &manifest("IPAMConfiguration", "default", "strictAffinity: false\nautoAllocateBlocks: true"),
    );
    assert_eq!(
        cluster.good("ipam configure --strictaffinity=true --max-blocks-per-host 5", ""),
        "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 5\n"
    );
    let shown = cluster.good("ipam show --show-configuration", "");
    assert!(shown.contains("| StrictAffinity               | true  |"), "{shown}");
    let yaml = cluster.good("get ipamconfig default -o yaml", "");
    assert!(yaml.contains("strictAffinity: true") && yaml.contains("maxBlocksPerHost: 5"), "{yaml}");
    assert!(cluster.bad("ipam configure --strictaffinity=false", "").contains("maxBlocksPerHost: 5 needs"));
    assert!(cluster.bad("ipam configure", "").contains("--strictaffinity"));
    cluster.good(
        "apply -f -",
        &manifest("IPAMConfiguration", "default", "strictAffinity: false\nautoAllocateBlocks: true"),
    );
    assert!(cluster.good("ipam show --show-configuration", "").contains("| StrictAffinity               | false |"));
    cluster.good("ipam configure --ip-cooldown-seconds 60", "");
    cluster.good("delete ipamconfig default", "");
    let shown = cluster.good("ipam show --show-configuration", "");
    assert!(shown.contains("| IPCooldownSeconds            | 0     |"), "{shown}");
}

#[test]
fn a_pool_is_split_in_one_write() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &pool("a", "10.0.0.0/24"));
    assert_eq!(
        cluster.good("ipam split 2 --cidr 10.0.0.0/24", ""),
        "IP Pool a was successfully split into 2 smaller pools.\nCreated split-a-0 with CIDR 10.0.0.0/25.\nCreated split-a-1 with CIDR 10.0.0.128/25.\n"
    );
    let pools = cluster.good("get ippool", "");
    assert!(pools.contains("split-a-0   10.0.0.0/25") && !pools.contains("/24"), "{pools}");
    assert!(cluster.bad("ipam split 3 --name split-a-0", "").contains("power of 2"));
}

#[test]
fn a_pool_in_use_is_closed_first_and_warned_about() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &(node("n1") + &pool("a", "10.0.0.0/24")));
    assign(&cluster, "n1", "h1", 2);
    let ran = cluster.run("delete ippool a", "");
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully deleted 1 'IPPool' resource(s)\n"), "{ran:?}");
    assert!(ran.err.contains("WARNING: IPPool(a): 2 of its addresses in 1 block(s) are still in use"), "{}", ran.err);
    let error = cluster.bad("create -f -", &manifest("IPPool", "b", "cidr: 10.0.0.0/24\nblockSize: 28"));
    assert!(error.contains("IPPool(b): spec.blockSize: 28: expected 26"), "{error}");
}

#[test]
fn a_node_takes_what_is_its_own_with_it() {
    let cluster = Cluster::new();
    let own = manifest("BGPPeer", "p1", "node: n1\npeerIP: 10.9.0.9\nasNumber: 64513")
        + &manifest("BGPPeer", "p2", "peerIP: 10.9.0.8\nasNumber: 64513")
        + &manifest("FelixConfiguration", "node.n1", "{}");
    cluster.good("create -f -", &(node("n1") + &pool("a", "10.0.0.0/24") + &own));
    assign(&cluster, "n1", "h1", 1);
    let address = first_address(&cluster);
    let endpoint = manifest(
        "WorkloadEndpoint",
        "n1-k8s-web-eth0",
        &format!(
            "orchestrator: k8s\nnode: n1\npod: web\nendpoint: eth0\ninterfaceName: cali0\nipNetworks: [{address}/32]"
        ),
    );
    cluster.good("create -n prod -f -", &endpoint);
    let weps = cluster.good("get wep -n prod", "");
    assert!(weps.starts_with("NAMESPACE   WORKLOAD   NODE   NETWORKS"), "{weps}");
    assert!(cluster.good("ipam check", "").ends_with("found 0 problems.\n"));
    cluster.good("delete node n1", "");
    assert_eq!(cluster.good("get wep -A", "").lines().filter(|line| !line.is_empty()).count(), 1);
    assert_eq!(cluster.good("get bgppeer -o custom-columns=NAME", ""), "NAME   \np2     \n\n");
    assert!(cluster.good("get felixconfig", "").lines().all(|line| !line.contains("node.n1")));
    assert_eq!(cluster.good(&format!("ipam show --ip {address}"), ""), format!("{address} is not assigned\n"));
    assert!(cluster.good("ipam check", "").contains("Found 0 IPAM blocks."));
}

#[test]
fn the_nodes_state_is_asked_and_shown() {
    let cluster = Cluster::new();
    let error = cluster.bad("node status", "");
    assert!(error.starts_with("Calico process is not running.\n") && error.contains("TORTIE_STATE_DIR"), "{error}");
    let listener = UnixListener::bind(cluster.path(wire::SOCKET)).expect("a socket");
    let answers = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("a call");
            let (request, _): (Request, _) = wire::receive(&mut stream).expect("a request");
            assert_eq!(request.operation, Operation::NodeStatus);
            let state = json!({"bgp": {"running": true, "fault": null, "peers": [{
                "address": "fd00::2", "kind": "global", "state": "up", "since": 0, "info": "Established",
                "received": 1, "sent": 2,
            }]}});
            wire::send(&mut stream, &Reply::State(state), None).expect("answered");
        }
    });
    let shown = cluster.good("node status", "");
    let expected = "\
Calico process is running.

IPv4 BGP status
No IPv4 peers found.

IPv6 BGP status
+--------------+-----------+-------+------------+-------------+
| PEER ADDRESS | PEER TYPE | STATE |   SINCE    |    INFO     |
+--------------+-----------+-------+------------+-------------+
| fd00::2      | global    | up    | 1970-01-01 | Established |
+--------------+-----------+-------+------------+-------------+

";
    assert_eq!(shown, expected);
    assert!(cluster.good("node status -o json", "").contains("\"received\": 1"));
    answers.join().expect("both were asked");
}

#[test]
fn versions_are_shown_and_compared() {
    let cluster = Cluster::new();
    let client = format!("Client Version:    {}\nGit commit:        ", tortie_ctl::VERSION);
    assert!(cluster.good("version --client", "").starts_with(&client));
    let ran = cluster.run("version", "");
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("unable to retrieve Cluster Version or Type"), "{ran:?}");
    cluster.good("create -f -", &node("n1"));
    let shown = cluster.good("version", "");
    assert!(shown.ends_with("Cluster Version:   unknown\nCluster Type:      unknown\n"), "{shown}");
    set_version(&cluster, "v9.9.9");
    let error = cluster.bad("get node", "");
    assert!(error.starts_with("version mismatch.") && error.contains("--allow-version-mismatch"), "{error}");
    cluster.good("get node --allow-version-mismatch", "");
    assert!(cluster.good("version", "").contains("Cluster Version:   v9.9.9\n"));
}

#[test]
fn wrong_command_lines_name_the_right_word() {
    let cluster = Cluster::new();
    for (line, part) in [
        ("aply -f x", "'apply'"),
        ("gte node", "'get'"),
        ("ipam shwo", "'show'"),
        ("get ippool --outptu yaml", "'--output'"),
        ("get", "<KIND>"),
        ("create", "--filename"),
        ("get ippol", "did you mean \"IPPool\"?"),
        ("get node -l dbug", "debug"),
        ("patch node n1 -p {} --type jsn", "json"),
        ("delete node", "expected one or more names"),
        ("create -f /nowhere.yaml", "/nowhere.yaml"),
        ("convert -f x", "open x"),
        ("datastore migrate exprot", "'export'"),
        ("config set nodeToNodMesh off", "did you mean \"nodeToNodeMesh\"?"),
        ("node run", "tortie node"),
        ("get node --config /nowhere.cfg", "Error reading config file: /nowhere.cfg"),
    ] {
        let error = cluster.bad(line, "");
        assert!(error.contains(part), "{line}: {error}");
    }
    for line in ["--help", "get --help", "create --help", "ipam show --help", "node status --help", "help patch"] {
        assert!(cluster.good(line, "").contains("Usage: calicoctl"), "{line}");
    }
    for line in [
        "apply",
        "create",
        "replace",
        "validate",
        "delete",
        "get",
        "patch",
        "label",
        "convert",
        "version",
        "completion",
        "config set",
        "config get",
        "config unset",
        "ipam show",
        "ipam check",
        "ipam release",
        "ipam configure",
        "ipam split",
        "node status",
        "node run",
        "node diags",
        "node checksystem",
        "cluster diags",
        "datastore migrate export",
        "datastore migrate import",
        "datastore migrate lock",
        "datastore migrate unlock",
        "datastore migrate-policy-names",
    ] {
        let help = cluster.good(&format!("{line} --help"), "");
        assert!(help.contains("Example: "), "{line}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(cluster.good(&format!("completion {shell}"), "").contains("calicoctl"));
    }
}

#[test]
fn a_store_that_can_not_be_used_is_named() {
    let mut cluster = Cluster::new();
    let text = cluster
        .file("tortie.db", "this is no database, but it is long enough to be looked at as one. ".repeat(20).as_str());
    let error = cluster.bad("get node", "");
    assert!(error.contains(&text) && error.contains("not a SQLite database"), "{error}");
    cluster.env.insert("TORTIE_SQLITE".into(), "/nowhere/at/all.db".into());
    let error = cluster.bad("get node", "");
    assert!(error.contains("/nowhere/at/all.db") && error.contains("does not exist"), "{error}");
    cluster.env.insert("DATASTORE_TYPE".into(), "sqllite".into());
    let error = cluster.bad("get node", "");
    assert!(error.contains("DATASTORE_TYPE") && error.contains("\"sqlite\""), "{error}");
}

fn change_cluster(cluster: &Cluster, change: impl Fn(&mut tortie_api::ClusterInformation)) {
    use tortie_api::{Kind, Resource};
    let key = tortie_facts::Key::resource(Kind::ClusterInformation, "", "default");
    tortie_store::resource::update(&cluster.store(), &key, |found| {
        let Some(Resource::ClusterInformation(info)) = found else { panic!("it is there from the first write on") };
        let mut info = (**info).clone();
        change(&mut info);
        info.into()
    })
    .expect("written");
}

fn set_version(cluster: &Cluster, version: &str) {
    change_cluster(cluster, |info| version.clone_into(&mut info.spec.calico_version));
}
