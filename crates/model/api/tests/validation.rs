//! Defaults and refusals, kind by kind.

use tortie_api::Resource;

fn resource(kind: &str, name: &str, spec: &str) -> Resource {
    let text = format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{{spec}}}}}"#
    );
    Resource::from_json(&text).unwrap_or_else(|error| panic!("{kind} {spec}: {error}"))
}

/// The paths that are refused once defaults are filled in.
fn refused(kind: &str, name: &str, spec: &str) -> Vec<String> {
    let mut resource = resource(kind, name, spec);
    resource.apply_defaults();
    let mut paths: Vec<_> = resource.validate().err().into_iter().flatten().map(|error| error.path).collect();
    paths.dedup();
    paths
}

fn check(kind: &str, table: &[(&str, &[&str])]) {
    for (spec, expected) in table {
        assert_eq!(refused(kind, "default", spec), *expected, "{kind} {spec}");
    }
}

fn with_defaults(kind: &str, spec: &str) -> String {
    let mut resource = resource(kind, "default", spec);
    resource.apply_defaults();
    let text = resource.to_json();
    resource.apply_defaults();
    assert_eq!(resource.to_json(), text, "defaults are filled in once");
    text
}

#[test]
fn rules_are_checked_as_upstream_checks_them() {
    let rule = |rule: &str| format!(r#""ingress":[{{"action":"Allow",{rule}}}]"#);
    for (body, expected) in [
        (r#""protocol":"TCP","destination":{"ports":[80,"1:2","http"]}"#, ""),
        (r#""destination":{"ports":["http"]}"#, ""),
        (r#""destination":{"ports":[80]}"#, "destination.ports"),
        (r#""protocol":"ICMP","source":{"notPorts":["x"]}"#, "source.notPorts"),
        (r#""protocol":132,"destination":{"ports":[80]}"#, ""),
        (r#""protocol":"TCP","destination":{"ports":[0]}"#, "destination.ports[0]"),
        (r#""protocol":"TCP","destination":{"ports":["80-90"]}"#, "destination.ports[0]"),
        (r#""protocol":"TCP","source":{"notPorts":["HTTP"]}"#, "source.notPorts[0]"),
        (r#""protocol":"TCP","destination":{"ports":[80,"a--b"]}"#, "destination.ports[1]"),
        (r#""protocol":"TCP","destination":{"ports":["a-name-of-16-byte"]}"#, "destination.ports[0]"),
        (r#""protocol":0"#, "protocol"),
        (r#""ipVersion":5"#, "ipVersion"),
        (r#""protocol":"ICMP","ipVersion":6"#, "protocol"),
        (r#""notProtocol":58,"ipVersion":4"#, "notProtocol"),
        (r#""protocol":"ICMPv6","icmp":{"type":128,"code":0}"#, ""),
        (r#""protocol":"ICMP","icmp":{"code":0}"#, "icmp.code"),
        (r#""protocol":"ICMP","icmp":{"type":255}"#, "icmp.type"),
        (r#""protocol":"TCP","notICMP":{"type":8}"#, "notICMP"),
        (r#""source":{"nets":["10.0.0.0/8","1.2.3.4/32"]}"#, ""),
        (r#""source":{"nets":["10.1.2.3/8"]}"#, "source.nets[0]"),
        (r#""source":{"notNets":["10.0.0.0/8","1.2.3.4"]}"#, "source.notNets[1]"),
        (r#""source":{"nets":["010.0.0.0/8"]}"#, "source.nets[0]"),
        (r#""source":{"nets":["fd00::/64","fd00::1/128","::/0"]}"#, ""),
        (r#""source":{"nets":["fd00::1/64"]}"#, "source.nets[0]"),
        (r#""source":{"nets":["10.0.0.0/8","fd00::/8"]}"#, "source.nets[1]"),
        (r#""source":{"nets":["10.0.0.0/8"]},"destination":{"notNets":["fd00::/8"]}"#, "destination.notNets[0]"),
        (r#""ipVersion":6,"source":{"nets":["10.0.0.0/8"]}"#, "source.nets[0]"),
        (r#""source":{"notNets":["0.0.0.0/0"]}"#, "source.notNets[0]"),
        (r#""source":{"nets":["10.0.0.0/8","10.0.0.0/8"]}"#, "source.nets[1]"),
        (r#""source":{"selector":"global()"}"#, "source.selector"),
        (r#""source":{"namespaceSelector":"global()"}"#, ""),
        (r#""source":{"namespaceSelector":" global( ) "}"#, ""),
        (r#""source":{"namespaceSelector":"global() || has(x)"}"#, "source.namespaceSelector"),
        (r#""source":{"notSelector":"has("}"#, "source.notSelector"),
        (r#""source":{"serviceAccounts":{"names":["a"],"selector":"x"}}"#, "source.serviceAccounts.selector"),
        (r#""source":{"services":{"name":"s"}}"#, ""),
        (r#""source":{"services":{"namespace":"n"}}"#, "source.services.name"),
        (r#""source":{"services":{"name":"s"},"selector":"all()"}"#, "source.services"),
        (r#""destination":{"services":{"name":"s"}}"#, "destination.services"),
        (r#""http":{"methods":["GET"],"paths":[{"exact":"/a"},{"prefix":"/b"}]}"#, ""),
        (r#""http":{"methods":["GET","GET"]}"#, "http.methods[1]"),
        (r#""http":{"paths":[{"exact":"a"}]}"#, "http.paths[0]"),
        (r#""http":{"paths":[{"exact":"/a","prefix":"/b"}]}"#, "http.paths[0]"),
        (r#""protocol":"UDP","http":{}"#, "http"),
        (r#""metadata":{"annotations":{"a b":"c"}}"#, "metadata.annotations"),
    ] {
        let expected: Vec<String> =
            if expected.is_empty() { vec![] } else { vec![format!("spec.ingress[0].{expected}")] };
        assert_eq!(refused("NetworkPolicy", "a", &rule(body)), expected, "{body}");
    }
    check(
        "NetworkPolicy",
        &[
            (r#""ingress":[{"action":"Deny","http":{}}]"#, &["spec.ingress[0].http"]),
            (r#""egress":[{"action":"Allow","http":{}}]"#, &["spec.egress[0].http"]),
            (
                r#""egress":[{"action":"Allow","source":{"services":{"name":"s"}}}]"#,
                &["spec.egress[0].source.services"],
            ),
            (
                r#""egress":[{"action":"Allow","protocol":"TCP","destination":{"services":{"name":"s"},"ports":[80]}}]"#,
                &["spec.egress[0].destination.ports"],
            ),
        ],
    );
    let many = format!(r#""ingress":[{}]"#, vec![r#"{"action":"Deny"}"#; 1025].join(","));
    assert_eq!(refused("NetworkPolicy", "a", &many), ["spec.ingress"]);
}

#[test]
fn what_is_no_port_name_names_the_port_that_is_meant() {
    let said = |port: &str| {
        let rule = format!(r#""ingress":[{{"action":"Deny","protocol":"TCP","destination":{{"ports":["{port}"]}}}}]"#);
        let errors = resource("NetworkPolicy", "a", &rule).validate().expect_err(port);
        errors.first().expect("at least one").to_string()
    };
    let expected = "expected a port, a range written 80:90, or a port name";
    let at = "spec.ingress[0].destination.ports[0]";
    assert_eq!(said("80-90"), format!(r#"{at}: "80-90": {expected}; did you mean "80:90"?"#));
    assert_eq!(said("HTTP"), format!(r#"{at}: "HTTP": {expected}; did you mean "http"?"#));
    assert_eq!(said("90-80"), format!(r#"{at}: "90-80": {expected}"#));
    assert_eq!(said("a--b"), format!(r#"{at}: "a--b": {expected}"#));
}

#[test]
fn a_prefix_that_is_written_wrong_names_the_one_that_is_meant() {
    let near = |kind: &str, spec: String| {
        let errors = resource(kind, "default", &spec).validate().expect_err("it is wrong");
        errors.into_iter().next().expect("at least one").nearest
    };
    for (text, rule, reserved, set) in [
        ("10.1.2.3/8", Some("10.0.0.0/8"), None, None),
        ("1.2.3.4", Some("1.2.3.4/32"), Some("1.2.3.4/32"), None),
        ("010.1.2.3/8", Some("10.0.0.0/8"), Some("10.1.2.3/8"), Some("10.1.2.3/8")),
        ("fd00::1", Some("fd00::1/128"), Some("fd00::1/128"), None),
    ] {
        let own = |meant: Option<&str>| meant.map(str::to_owned);
        let nets = format!(r#""ingress":[{{"action":"Allow","source":{{"nets":["{text}"]}}}}]"#);
        assert_eq!(near("GlobalNetworkPolicy", nets), own(rule), "{text}");
        if reserved.is_some() {
            assert_eq!(near("IPReservation", format!(r#""reservedCIDRs":["{text}"]"#)), own(reserved), "{text}");
        }
        if set.is_some() {
            assert_eq!(near("GlobalNetworkSet", format!(r#""nets":["{text}"]"#)), own(set), "{text}");
        }
    }
}

#[test]
fn policies_are_checked_as_upstream_checks_them() {
    check(
        "NetworkPolicy",
        &[
            ("", &[]),
            (r#""selector":"global()""#, &["spec.selector"]),
            (r#""types":["Ingress","Ingress"]"#, &["spec.types[1]"]),
            (r#""tier":"a.b""#, &["spec.tier"]),
        ],
    );
    check(
        "GlobalNetworkPolicy",
        &[
            (r#""doNotTrack":true,"applyOnForward":true"#, &[]),
            (r#""doNotTrack":true"#, &["spec.applyOnForward"]),
            (r#""doNotTrack":true,"preDNAT":true,"applyOnForward":true"#, &["spec.preDNAT"]),
            (r#""preDNAT":true,"applyOnForward":true,"types":["Egress"]"#, &["spec.types"]),
            (
                r#""preDNAT":true,"applyOnForward":true,"types":["Ingress"],"egress":[{"action":"Deny"}]"#,
                &["spec.egress"],
            ),
            (
                r#""ingress":[{"action":"Allow","source":{"services":{"name":"s"}}}]"#,
                &["spec.ingress[0].source.services.namespace"],
            ),
            (r#""namespaceSelector":"global()""#, &["spec.namespaceSelector"]),
        ],
    );
    for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"] {
        check(kind, &[(r#""stagedAction":"Delete""#, &[])]);
        let field = if kind.contains("Kubernetes") { r#""policyTypes":["Egress"]"# } else { r#""order":5"# };
        assert_eq!(refused(kind, "a", &format!(r#""stagedAction":"Delete",{field}"#)), ["spec"], "{kind}");
    }
    for (name, good) in
        [("a", true), ("a.b", true), ("a.b.c", false), ("knp.default.x.y", true), ("A", false), ("a_b", false)]
    {
        assert_eq!(refused("NetworkPolicy", name, "").is_empty(), good, "{name}");
    }
    assert!(!refused("GlobalNetworkPolicy", "knp.default.x", "").is_empty());
}

#[test]
fn policies_get_tier_label_and_types() {
    let rule = r#"[{"action":"Deny"}]"#;
    for (spec, types) in [
        (String::new(), r#"["Ingress"]"#),
        (format!(r#""ingress":{rule}"#), r#"["Ingress"]"#),
        (format!(r#""egress":{rule}"#), r#"["Egress"]"#),
        (format!(r#""ingress":{rule},"egress":{rule}"#), r#"["Ingress","Egress"]"#),
        (format!(r#""egress":{rule},"types":["Ingress"]"#), r#"["Ingress"]"#),
    ] {
        for kind in ["NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
            let text = with_defaults(kind, &spec);
            assert!(text.contains(&format!(r#""types":{types}"#)), "{text}");
            assert!(text.contains(r#""labels":{"projectcalico.org/tier":"default"}"#), "{text}");
            assert!(text.contains(r#""tier":"default""#), "{text}");
        }
    }
}

#[test]
fn tiers_have_simple_names_and_the_fixed_ones_fixed_settings() {
    assert!(with_defaults("Tier", "").contains(r#""spec":{"order":1000000,"defaultAction":"Deny"},"status":{}"#));
    check(
        "Tier",
        &[("", &[]), (r#""order":5"#, &["spec.order"]), (r#""defaultAction":"Pass""#, &["spec.defaultAction"])],
    );
    assert_eq!(refused("Tier", "kube-admin", ""), ["spec.order", "spec.defaultAction"]);
    assert!(refused("Tier", "kube-admin", r#""order":1000,"defaultAction":"Pass""#).is_empty());
    assert_eq!(refused("Tier", "mine", r#""defaultAction":"Allow""#), ["spec.defaultAction"]);
    assert_eq!(refused("Tier", "a.b", ""), ["metadata.name"]);
    assert_eq!(refused("Tier", &"a".repeat(64), ""), ["metadata.name"]);
}

#[test]
fn pools_are_checked_as_upstream_checks_them() {
    let text = with_defaults("IPPool", r#""cidr":"10.0.0.0/16""#);
    assert!(text.contains(r#""spec":{"cidr":"10.0.0.0/16","vxlanMode":"Never","ipipMode":"Never","blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#), "{text}");
    assert!(with_defaults("IPPool", r#""cidr":"FD00:0::0/64""#).contains(r#""cidr":"fd00::/64""#));
    assert!(with_defaults("IPPool", r#""cidr":"fd00::/64""#).contains(r#""blockSize":122"#));
    check(
        "IPPool",
        &[
            (r#""cidr":"10.0.0.0/26""#, &[]),
            (r#""cidr":"10.0.0.0/27""#, &["spec.cidr"]),
            (r#""cidr":"10.0.0.0/27","disabled":true"#, &[]),
            (r#""cidr":"10.0.0.0/27","blockSize":28"#, &[]),
            (r#""cidr":"10.0.0.0/16","blockSize":19"#, &["spec.blockSize"]),
            (r#""cidr":"fd00::/64","blockSize":26"#, &["spec.blockSize"]),
            (r#""cidr":"10.0.0.1/16""#, &["spec.cidr"]),
            (r#""cidr":"010.0.0.0/16""#, &["spec.cidr"]),
            (r#""cidr":"""#, &["spec.cidr"]),
            (r#""cidr":"169.254.1.0/24""#, &["spec.cidr"]),
            (r#""cidr":"169.0.0.0/8""#, &["spec.cidr"]),
            (r#""cidr":"fe80::/64""#, &["spec.cidr"]),
            (r#""cidr":"10.0.0.0/16","ipipMode":"Always","vxlanMode":"CrossSubnet""#, &["spec.vxlanMode"]),
            (r#""cidr":"fd00::/64","ipipMode":"Always""#, &["spec.ipipMode"]),
            (r#""cidr":"10.0.0.0/16","nodeSelector":"bad""#, &["spec.nodeSelector"]),
            (r#""cidr":"10.0.0.0/16","namespaceSelector":"has(x)""#, &["spec.namespaceSelector"]),
            (r#""cidr":"10.0.0.0/16","namespaceSelector":"has(x)","allowedUses":["Workload"]"#, &[]),
            (r#""cidr":"10.0.0.0/16","allowedUses":["LoadBalancer"]"#, &[]),
            (r#""cidr":"10.0.0.0/16","allowedUses":["LoadBalancer","Workload"]"#, &["spec.allowedUses"]),
            (r#""cidr":"10.0.0.0/16","allowedUses":["LoadBalancer"],"vxlanMode":"Always""#, &["spec.allowedUses"]),
            (
                r#""cidr":"10.0.0.0/16","allowedUses":["LoadBalancer"],"disableBGPExport":true,"nodeSelector":"has(a)""#,
                &["spec.disableBGPExport", "spec.nodeSelector"],
            ),
        ],
    );
    check(
        "IPReservation",
        &[
            (r#""reservedCIDRs":["10.0.0.5/32","10.0.1.1/28"]"#, &[]),
            (r#""reservedCIDRs":["10.0.0.5"]"#, &["spec.reservedCIDRs[0]"]),
            (r#""reservedCIDRs":["x"]"#, &["spec.reservedCIDRs[0]"]),
        ],
    );
    check(
        "IPAMConfiguration",
        &[
            ("", &[]),
            (r#""autoAllocateBlocks":false"#, &["spec.autoAllocateBlocks"]),
            (r#""autoAllocateBlocks":false,"strictAffinity":true"#, &[]),
            (r#""maxBlocksPerHost":4"#, &["spec.maxBlocksPerHost"]),
            (r#""maxBlocksPerHost":4,"strictAffinity":true"#, &[]),
            (r#""ipCooldownSeconds":1201"#, &["spec.ipCooldownSeconds"]),
        ],
    );
    assert_eq!(refused("IPAMConfiguration", "other", ""), ["metadata.name"]);
    check(
        "BlockAffinity",
        &[
            (r#""state":"confirmed","node":"n","cidr":"10.0.0.0/26","deleted":false"#, &[]),
            (r#""state":"","node":"n","type":"virtual","cidr":"10.0.0.0/26","deleted":true"#, &["spec.deleted"]),
        ],
    );
}

#[test]
fn endpoints_and_nodes_are_checked_as_upstream_checks_them() {
    check(
        "HostEndpoint",
        &[
            (r#""node":"n","interfaceName":"*""#, &[]),
            (r#""node":"n","expectedIPs":["10.0.0.1","fd00::1"]"#, &[]),
            (r#""node":"n""#, &["spec.interfaceName"]),
            (r#""node":"n","interfaceName":"eth0","profiles":[""]"#, &["spec.profiles[0]"]),
            (r#""node":"n","interfaceName":"eth0","expectedIPs":[""]"#, &["spec.expectedIPs[0]"]),
            (r#""interfaceName":"eth0""#, &["spec.node"]),
            (r#""node":"n","interfaceName":"a-very-long-name-0""#, &["spec.interfaceName"]),
            (r#""node":"n","interfaceName":"eth0","expectedIPs":["10.0.0.0/8"]"#, &["spec.expectedIPs[0]"]),
            (
                r#""node":"n","interfaceName":"eth0","ports":[{"name":"A","protocol":"ICMP","port":0}]"#,
                &["spec.ports[0].name", "spec.ports[0].protocol", "spec.ports[0].port"],
            ),
        ],
    );
    check(
        "Node",
        &[
            ("", &[]),
            (r#""bgp":{"ipv4Address":"10.0.0.1/24","ipv6Address":"fd00::1","asNumber":"1.10"}"#, &[]),
            (r#""bgp":{}"#, &["spec.bgp"]),
            (r#""bgp":{"ipv4Address":"fd00::1/64"}"#, &["spec.bgp.ipv4Address"]),
            (
                r#""vxlanTunnelMACAddr":"x","ipv4VXLANTunnelAddr":"fd00::1""#,
                &["spec.ipv4VXLANTunnelAddr", "spec.vxlanTunnelMACAddr"],
            ),
            (r#""addresses":[{"address":"10.0.0.1","type":"Other"}]"#, &["spec.addresses[0].type"]),
        ],
    );
    let wep = r#""orchestrator":"k8s","node":"n-1","pod":"p","endpoint":"eth0","interfaceName":"cali0""#;
    let name = "n--1-k8s-p-eth0";
    for (spec, expected) in [
        (r#""ipNetworks":["10.0.0.1/32","fd00::1"]"#, &[][..]),
        (r#""ipNetworks":["10.0.0.0/24"]"#, &["spec.ipNetworks[0]"]),
        (r#""ipNetworks":["10.0.0.01"]"#, &["spec.ipNetworks[0]"]),
        (r#""ipNetworks":["10.0.0.1"],"ipNATs":[{"internalIP":"10.0.0.1","externalIP":"1.2.3.4"}]"#, &[]),
        (
            r#""ipNATs":[{"internalIP":"10.0.0.1","externalIP":"::1"}]"#,
            &["spec.ipNATs[0].internalIP", "spec.ipNATs[0].externalIP"],
        ),
        (r#""ports":[{"name":"","protocol":"TCP","port":1,"hostPort":0,"hostIP":""}]"#, &["spec.ports[0].name"]),
        (r#""mac":"ee:ee""#, &["spec.mac"]),
        (r#""profiles":["a",""]"#, &["spec.profiles[1]"]),
    ] {
        assert_eq!(refused("WorkloadEndpoint", name, &format!("{wep},{spec}")), expected, "{spec}");
    }
    assert_eq!(refused("WorkloadEndpoint", "other", wep), ["metadata.name"]);
    assert_eq!(
        refused("WorkloadEndpoint", "x", r#""orchestrator":"k8s","node":"n","endpoint":"eth0""#),
        ["spec.pod", "spec.interfaceName"]
    );
    assert!(refused("WorkloadEndpoint", "", wep).is_empty(), "a missing name is filled in");
}

#[test]
fn bgp_is_checked_as_upstream_checks_it() {
    check(
        "BGPConfiguration",
        &[
            (r#""asNumber":64512,"nodeToNodeMeshEnabled":false,"logSeverityScreen":"debug""#, &[]),
            (r#""serviceLoadBalancerIPs":[{"cidr":"10.1.0.0/16"},{"cidr":""}]"#, &[]),
            (r#""logSeverityScreen":"Loud""#, &["spec.logSeverityScreen"]),
            (r#""communities":[{"name":"c","value":"1:2"}]"#, &["spec.communities"]),
            (
                r#""communities":[{"value":"1:2"}],"prefixAdvertisements":[{"cidr":"10.0.0.0/8"}]"#,
                &["spec.communities[0].name", "spec.prefixAdvertisements[0].communities"],
            ),
            (r#""ignoredInterfaces":["eth0",""]"#, &["spec.ignoredInterfaces[1]"]),
            (
                r#""communities":[{"name":"c","value":"1:2"}],"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["c","1:2:3"]}]"#,
                &[],
            ),
            (
                r#""prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["d"]}]"#,
                &["spec.prefixAdvertisements[0].communities[0]"],
            ),
            (r#""nodeToNodeMeshEnabled":false,"nodeMeshMaxRestartTime":"10s""#, &["spec.nodeMeshMaxRestartTime"]),
            (
                r#""serviceClusterIPs":[{"cidr":"10.1.2.3/8"}],"serviceExternalIPs":[{"cidr":"1.2.3.4"}]"#,
                &["spec.serviceExternalIPs[0].cidr", "spec.serviceClusterIPs[0].cidr"],
            ),
            (
                r#""prefixAdvertisements":[{"cidr":"fd00::1/64","communities":["1:2"]}]"#,
                &["spec.prefixAdvertisements[0].cidr"],
            ),
            (
                r#""serviceClusterIPs":[{"cidr":"x"}],"ignoredInterfaces":["*"]"#,
                &["spec.serviceClusterIPs[0].cidr", "spec.ignoredInterfaces[0]"],
            ),
        ],
    );
    assert_eq!(refused("BGPConfiguration", "node.a", r#""asNumber":1"#), ["spec.asNumber"]);
    check(
        "BGPPeer",
        &[
            (r#""peerIP":"10.0.0.1:1790","asNumber":1"#, &[]),
            (r#""peerIP":"[fd00::1]:179","asNumber":"1.1","reachableBy":"fd00::2""#, &[]),
            (r#""peerIP":"10.0.0.1:0""#, &["spec.peerIP"]),
            (r#""peerIP":"10.0.0.1","filters":["a",""]"#, &["spec.filters[1]"]),
            (r#""node":"n","nodeSelector":"all()""#, &["spec.nodeSelector"]),
            (r#""peerIP":"10.0.0.1","peerSelector":"all()""#, &["spec.peerSelector"]),
            (r#""peerSelector":"all()","asNumber":1"#, &["spec.asNumber"]),
            (r#""localWorkloadSelector":"all()""#, &["spec.asNumber"]),
            (r#""localWorkloadSelector":"all()","asNumber":1"#, &[]),
            (r#""reachableBy":"10.0.0.1""#, &["spec.reachableBy"]),
            (r#""peerIP":"10.0.0.1","reachableBy":"fd00::2""#, &["spec.reachableBy"]),
            (r#""keepOriginalNextHop":true,"nextHopMode":"Keep""#, &["spec.keepOriginalNextHop"]),
        ],
    );
    let filter = |rule: &str| format!(r#""exportV4":[{{"action":"Accept",{rule}}}]"#);
    for (rule, expected) in [
        (r#""cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"min":8,"max":32}"#, ""),
        (r#""cidr":"10.0.0.0/8""#, "matchOperator"),
        (r#""cidr":"fd00::/8","matchOperator":"In""#, "cidr"),
        (r#""cidr":"10.1.2.3/8","matchOperator":"In""#, "cidr"),
        (r#""cidr":"10.1.2.3","matchOperator":"In""#, "cidr"),
        (r#""prefixLength":{"min":8}"#, "prefixLength"),
        (r#""cidr":"10.0.0.0/8","matchOperator":"In","prefixLength":{"max":33}"#, "prefixLength.max"),
        (r#""communities":{"values":["1:2","3:4"]}"#, "communities.values"),
        (r#""interface":"eth*""#, ""),
        (r#""operations":[{"addCommunity":{"value":"1:2"}},{"setPriority":{"value":5}}]"#, ""),
        (r#""operations":[{}]"#, "operations[0]"),
        (r#""operations":[{"addCommunity":{"value":"x"}}]"#, "operations[0].addCommunity.value"),
        (r#""operations":[{"prependASPath":{"prefix":[]}}]"#, "operations[0].prependASPath.prefix"),
        (r#""priority":0"#, "priority"),
    ] {
        let expected: Vec<String> =
            if expected.is_empty() { vec![] } else { vec![format!("spec.exportV4[0].{expected}")] };
        assert_eq!(refused("BGPFilter", "f", &filter(rule)), expected, "{rule}");
    }
    check(
        "BGPFilter",
        &[(
            r#""importV6":[{"action":"Reject","operations":[{"setPriority":{"value":5}}]}]"#,
            &["spec.importV6[0].operations"],
        )],
    );
}

#[test]
fn configuration_is_checked_as_upstream_checks_it() {
    let text = with_defaults("FelixConfiguration", r#""bpfLogLevel":"""#);
    assert!(text.contains(r#""nftablesMode":"Auto""#) && text.contains(r#""floatingIPs":"Disabled""#), "{text}");
    assert!(with_defaults("FelixConfiguration", r#""bpfConnectTimeLoadBalancingEnabled":false"#).contains(
        r#""bpfConnectTimeLoadBalancingEnabled":false,"bpfConnectTimeLoadBalancing":"Disabled","bpfHostNetworkedNATWithoutCTLB":"Disabled""#
    ));
    check(
        "FelixConfiguration",
        &[
            (r#""logSeverityScreen":"info","chainInsertMode":"append","bpfLogLevel":"off","vxlanMTU":1450"#, &[]),
            (r#""logSeverityScreen":"Verbose""#, &["spec.logSeverityScreen"]),
            (r#""defaultEndpointToHostAction":"Allow""#, &["spec.defaultEndpointToHostAction"]),
            (r#""nodeSelector":"all()""#, &["spec.nodeSelector"]),
            (r#""routeTableRanges":[{"min":5,"max":4}]"#, &["spec.routeTableRanges[0]"]),
            (
                r#""routeTableRange":{"min":1,"max":250},"routeTableRanges":[{"min":1,"max":2}]"#,
                &["spec.routeTableRange"],
            ),
            (
                r#""failsafeInboundHostPorts":[{"protocol":"ICMP","port":22}]"#,
                &["spec.failsafeInboundHostPorts[0].protocol"],
            ),
            (r#""failsafeInboundHostPorts":[{"protocol":"tcp","port":22},{"protocol":"Udp","port":68}]"#, &[]),
            (r#""failsafeOutboundHostPorts":[{"port":22},{"protocol":"sctp","port":9,"net":"10.0.0.0/8"}]"#, &[]),
            (
                r#""failsafeOutboundHostPorts":[{"protocol":"tpc","port":22}]"#,
                &["spec.failsafeOutboundHostPorts[0].protocol"],
            ),
            (r#""failsafeOutboundHostPorts":[]"#, &[]),
            (r#""kubeNodePortRanges":["http"]"#, &["spec.kubeNodePortRanges[0]"]),
            (r#""kubeNodePortRanges":["30000:32767"],"natPortRange":"32768:65535","bpfPSNATPorts":"20000:29999""#, &[]),
            (r#""natPortRange":"32768-65535","bpfPSNATPorts":"http""#, &["spec.natPortRange", "spec.bpfPSNATPorts"]),
            (r#""natOutgoingAddress":"fd00::1""#, &["spec.natOutgoingAddress"]),
            (r#""mtuIfacePattern":"(""#, &["spec.mtuIfacePattern"]),
            (r#""logActionRateLimit":"10/week""#, &["spec.logActionRateLimit"]),
            (r#""wireguardListeningPort":0"#, &["spec.wireguardListeningPort"]),
            (
                r#""reportingInterval":"0s","routeRefreshInterval":"-1s","wireguardKeepAlive":"-25s""#,
                &["spec.routeRefreshInterval", "spec.wireguardKeepAlive"],
            ),
            (r#""featureDetectOverride":"A=true,B=false""#, &[]),
            (r#""featureDetectOverride":"A=maybe""#, &["spec.featureDetectOverride"]),
        ],
    );
    assert!(refused("FelixConfiguration", "gpu-nodes", r#""nodeSelector":"has(gpu)""#).is_empty());
    let text = with_defaults("KubeControllersConfiguration", r#""controllers":{"node":{},"loadBalancer":{}}"#);
    assert!(text.contains(r#""healthChecks":"Enabled","prometheusMetricsPort":9094,"controllers":{"node":{"leakGracePeriod":"15m0s"},"loadBalancer":{"assignIPs":"AllServices"}}"#), "{text}");
    let template = |t: &str| format!(r#""controllers":{{"node":{{"hostEndpoint":{{"templates":[{t}]}}}}}}"#);
    let path = "spec.controllers.node.hostEndpoint.templates";
    assert_eq!(
        refused("KubeControllersConfiguration", "default", &template("{}")),
        [format!("{path}[0].generateName"), format!("{path}[0].interfaceCIDRs")]
    );
    let twice = r#"{"generateName":"a","interfacePattern":"eth.*"}"#;
    assert_eq!(
        refused("KubeControllersConfiguration", "default", &template(&format!("{twice},{twice}"))),
        [format!("{path}[1].generateName")]
    );
    check(
        "CalicoNodeStatus",
        &[
            (r#""node":"n","classes":["Agent"],"updatePeriodSeconds":0"#, &[]),
            (r#""node":"n""#, &["spec.classes", "spec.updatePeriodSeconds"]),
            (
                r#""node":"n","classes":["Agent","Agent"],"updatePeriodSeconds":86401"#,
                &["spec.classes[1]", "spec.updatePeriodSeconds"],
            ),
        ],
    );
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let text = r#"{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","namespace":"n",
        "labels":{"a/b/c":"x","ok":"-x"},"annotations":{"bad key":""}},"spec":{}}"#;
    let errors = Resource::from_json(text).expect("types are right").validate().expect_err("values are wrong");
    let paths: Vec<_> = errors.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(paths, ["metadata.namespace", "metadata.labels", "metadata.labels.ok", "metadata.annotations"]);
    check(
        "GlobalNetworkSet",
        &[
            (r#""nets":["10.0.0.1/8","fd00::1"]"#, &[]),
            (r#""nets":["x"]"#, &["spec.nets[0]"]),
            (r#""nets":["010.0.0.0/8","1.2.3.04"]"#, &["spec.nets[0]", "spec.nets[1]"]),
        ],
    );
    let text = r#"{"kind":"NetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"s","namespace":"n",
        "labels":{"projectcalico.org/namespace":"n"}},"spec":{}}"#;
    let errors = Resource::from_json(text).expect("types are right").validate().expect_err("a reserved label");
    assert_eq!(errors[0].path, "metadata.labels");
}
