//! Resources and settings of v1: the command lines of texts that were written for it.

mod common;

use common::{Cluster, manifest};
use similar_asserts::assert_eq;

const PROFILE: &str = "\
- apiVersion: v1
  kind: profile
  metadata:
    name: net1
    labels:
      role: net1
";

const POLICY: &str = "\
- apiVersion: v1
  kind: policy
  metadata:
    name: net1
  spec:
    order: 0
    selector: role == 'net1'
    ingress:
    - action: allow
    egress:
    - action: allow
";

const POOL: &str = "\
- apiVersion: v1
  kind: ipPool
  metadata:
    cidr: 192.168.0.0/16
  spec:
    ipip:
      enabled: true
    nat-outgoing: true
";

#[test]
fn the_walk_of_the_old_getting_started_text_works_as_written() {
    let cluster = Cluster::new();
    let ran = cluster.run("apply -f -", PROFILE);
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully applied 1 'Profile' resource(s)\n"));
    assert_eq!(
        ran.err,
        "NOTICE: 1 resource(s) of the old apiVersion v1 are taken as projectcalico.org/v3; calicoctl convert shows them so\n"
    );
    let ran = cluster.run("create -f -", POLICY);
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully created 1 'GlobalNetworkPolicy' resource(s)\n"));
    assert_eq!(cluster.good("config set ipip on", ""), "");
    // The pool has a name of its own by now, which the old form does not know.
    cluster.good("create -f -", &manifest("IPPool", "default-ipv4-ippool", "cidr: 192.168.0.0/16"));
    assert!(cluster.good("get ipPool -o yaml", "").contains("cidr: 192.168.0.0/16"));
    let ran = cluster.run("replace -f -", POOL);
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully replaced 1 'IPPool' resource(s)\n"), "{ran:?}");
    assert!(ran.err.contains("its range is that of IPPool(default-ipv4-ippool)"), "{ran:?}");
    let pools = cluster.good("get ippool -o custom-columns=NAME,CIDR,NAT,IPIPMODE", "");
    assert_eq!(
        pools,
        "NAME                  CIDR             NAT    IPIPMODE   \ndefault-ipv4-ippool   192.168.0.0/16   true   Always     \n\n"
    );
    // What get prints can be changed and given back.
    let list = cluster.good("get ipPool -o yaml", "").replace("    natOutgoing: true\n", "");
    assert_eq!(cluster.good("replace -f -", &list), "Successfully replaced 1 'IPPool' resource(s)\n");
    let ran = cluster.run("delete -f -", POLICY);
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully deleted 1 'GlobalNetworkPolicy' resource(s)\n"));
}

#[test]
fn validate_looks_at_no_datastore() {
    let mut cluster = Cluster::new();
    cluster.env.insert("TORTIE_SQLITE".into(), "/nowhere/at/all.db".into());
    let ran = cluster.run("validate -f -", &format!("{POOL}{PROFILE}"));
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully validated 2 resource(s)\n"), "{ran:?}");
    assert!(ran.err.starts_with("NOTICE: 2 resource(s) of the old apiVersion v1"), "{ran:?}");
}

#[test]
fn convert_shows_the_new_form() {
    let cluster = Cluster::new();
    let shown = cluster.good("convert -f -", POLICY);
    let expected = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: net1
spec:
  egress:
  - action: Allow
  ingress:
  - action: Allow
  order: 0
  selector: role == 'net1'
  types:
  - Ingress
  - Egress
";
    assert_eq!(shown, expected);
    let file = cluster.file("old.yaml", &format!("{PROFILE}{POLICY}{POOL}"));
    let several = cluster.good(&format!("convert -f {file}"), "");
    assert_eq!(several.matches("- apiVersion: projectcalico.org/v3\n").count(), 3, "{several}");
    // What was converted is taken without a notice.
    cluster.good("apply -f -", &several);
    let json = cluster.good(&format!("convert -f {file} -o json"), "");
    assert!(json.contains("\"kind\": \"Profile\""), "{json}");
    let ran = cluster.run("convert -f -", &POLICY.replace("name: net1", "name: Net_1"));
    assert!(ran.code == 0 && ran.err.contains("was named \"Net_1\""), "{ran:?}");
    let wrong = POLICY.replace("role == 'net1'", "\"((\"");
    let error = cluster.bad("convert -f -", &wrong);
    assert!(error.contains("spec.selector") && error.contains("'--ignore-validation'"), "{error}");
    assert!(cluster.good("convert --ignore-validation -f -", &wrong).contains("selector: (("));
    let error = cluster.bad("convert -f -", &POLICY.replace("order", "ordr"));
    assert!(error.contains("stdin:6") && error.contains("did you mean \"order\"?"), "{error}");
    assert!(cluster.bad("convert -o xml -f -", "").contains("yaml"));
}

#[test]
fn old_and_new_stand_side_by_side_and_wrong_ones_stop_both() {
    let cluster = Cluster::new();
    let both = format!("{}{}", manifest("Node", "n1", "bgp: {ipv4Address: 10.9.0.1/24}"), PROFILE);
    let ran = cluster.run("apply -f -", &both);
    assert_eq!((ran.code, ran.out.as_str()), (0, "Successfully applied 2 resource(s)\n"), "{ran:?}");
    let error = cluster.bad("apply -f -", &both.replace("role: net1", "ro/le/x: net1").replace("n1", "n2"));
    assert!(error.contains("spec.labelsToApply"), "{error}");
    assert!(!cluster.good("get node", "").contains("n2"));
    let error = cluster.bad("apply -f -", &PROFILE.replace("profile", "profil"));
    assert!(error.contains("stdin:2") && error.contains("did you mean \"Profile\"?"), "{error}");
    let error = cluster.bad("apply -f -", &POLICY.replace("kind: policy", "kind: polcy"));
    assert!(error.contains("stdin:2") && error.contains("did you mean \"policy\"?"), "{error}");
    assert!(cluster.bad("apply -f -", &PROFILE.replace("v1", "v2")).contains("projectcalico.org/v3"));
}

#[test]
fn settings_of_v1_are_kept_where_v3_has_them() {
    let cluster = Cluster::new();
    let get = |name: &str| cluster.good(&format!("config get {name}"), "");
    assert_eq!(
        [get("nodeToNodeMesh"), get("asNumber"), get("ipip"), get("logLevel")],
        ["on\n", "64512\n", "off\n", "info\n"]
    );
    for (line, now) in [
        ("nodeToNodeMesh off", "off\n"),
        ("asNumber 64999", "64999\n"),
        ("asNumber 1.10", "65546\n"),
        ("ipip on", "on\n"),
        ("loglevel warning", "warning\n"),
        ("logLevel critical", "critical\n"),
        ("logLevel debug", "debug\n"),
    ] {
        assert_eq!(cluster.good(&format!("config set {line}"), ""), "");
        assert_eq!(get(line.split(' ').next().expect("a name")), now, "{line}");
    }
    let yaml = cluster.good("get bgpconfig default -o yaml", "");
    for part in ["nodeToNodeMeshEnabled: false", "asNumber: 65546", "logSeverityScreen: Debug"] {
        assert!(yaml.contains(part), "{yaml}");
    }
    let yaml = cluster.good("get felixconfig default -o yaml", "");
    assert!(yaml.contains("ipipEnabled: true") && yaml.contains("logSeverityScreen: Debug"), "{yaml}");
    assert_eq!(get("logLevel --node=n1"), "debug (inherited from global)\n");
    cluster.good("config set logLevel error --node n1", "");
    assert_eq!(get("logLevel --node=n1"), "error\n");
    assert!(cluster.good("get felixconfig node.n1 -o yaml", "").contains("logSeverityScreen: Error"));
    cluster.good("config unset logLevel --node n1", "");
    assert_eq!(get("logLevel --node=n1"), "debug (inherited from global)\n");
    for name in ["nodeToNodeMesh", "asNumber", "ipip", "logLevel"] {
        cluster.good(&format!("config unset {name}"), "");
    }
    assert_eq!(
        [get("nodeToNodeMesh"), get("asNumber"), get("ipip"), get("logLevel")],
        ["on\n", "64512\n", "off\n", "info\n"]
    );
    cluster.good("create -f -", &manifest("IPPool", "a", "cidr: 10.0.0.0/16\nipipMode: CrossSubnet"));
    assert_eq!(get("ipip"), "on\n");
    for (line, part) in [
        ("config set ipip yes", "invalid value 'yes': expected on or off"),
        ("config set asNumber x", "AS number is not valid"),
        ("config set logLevel wrning", "did you mean \"warning\"?"),
        ("config set asNumber 1 --node n1", "--node should not be specified"),
        ("config get nodeToNodeMesh --node n1", "--node should not be specified"),
        ("config get nothing", "unrecognised config name 'nothing': expected one of logLevel"),
        ("config get x --raw felix", "unrecognised parameter of Felix 'x'"),
        ("config set InterfacePrefx cali --raw felix", "did you mean \"InterfacePrefix\"?"),
        ("config set HealthPort many --raw felix", "HealthPort"),
        ("config set password x --raw bgp", "expected as_num, node_mesh, loglevel or listen_port"),
        ("config set node_mesh maybe --raw bgp", "expected on or off"),
    ] {
        let error = cluster.bad(line, "");
        assert!(error.starts_with("Error executing command: ") && error.contains(part), "{line}: {error}");
    }
}

#[test]
fn raw_settings_are_fields_of_the_configurations() {
    let cluster = Cluster::new();
    let get = |rest: &str| cluster.good(&format!("config get {rest}"), "");
    for (line, field) in [
        ("ReportingIntervalSecs 60 --raw felix", "reportingInterval: 1m0s"),
        ("IptablesLockProbeIntervalMillis 20 --raw felix", "iptablesLockProbeInterval: 20ms"),
        ("interfaceprefix tap,cali --raw felix", "interfacePrefix: tap,cali"),
        ("BPFEnabled no --raw felix", "bpfEnabled: false"),
    ] {
        cluster.good(&format!("config set {line}"), "");
        let yaml = cluster.good("get felixconfig default -o yaml", "");
        assert!(yaml.contains(field), "{yaml}");
    }
    assert_eq!(get("InterfacePrefix --raw felix"), "tap,cali\n");
    assert_eq!(get("InterfacePrefix --raw felix --node n1"), "\n");
    cluster.good("config set InterfacePrefix vm --raw felix --node n1", "");
    assert_eq!(get("InterfacePrefix --raw felix --node n1"), "vm\n");
    cluster.good("config unset InterfacePrefix --raw felix", "");
    assert_eq!(get("InterfacePrefix --raw felix"), "\n");
    for line in ["as_num 1.10 --raw bgp", "node_mesh {\"enabled\":false} --raw bgp", "listen_port 1790 --raw bgp"] {
        cluster.good(&format!("config set {line}"), "");
    }
    let yaml = cluster.good("get bgpconfig default -o yaml", "");
    for part in ["asNumber: 65546", "nodeToNodeMeshEnabled: false", "listenPort: 1790"] {
        assert!(yaml.contains(part), "{yaml}");
    }
}
