//! Create, apply, replace, get and delete against a store.

mod common;

use common::{Cluster, manifest};
use similar_asserts::assert_eq;

fn pool(name: &str, cidr: &str) -> String {
    manifest("IPPool", name, &format!("cidr: {cidr}"))
}

#[test]
fn a_pool_is_created_shown_and_deleted() {
    let cluster = Cluster::new();
    assert_eq!(cluster.good("create -f -", &pool("a", "10.0.0.0/16")), "Successfully created 1 'IPPool' resource(s)\n");
    assert_eq!(
        cluster.good("get ippools", ""),
        "NAME   CIDR          SELECTOR   \na      10.0.0.0/16   all()      \n\n"
    );
    let wide = cluster.good("get pool a -o wide", "");
    let expected = "\
NAME   CIDR          NAT     IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   SELECTOR   ASSIGNMENTMODE   
a      10.0.0.0/16   false   Never      Never       false      false              all()      Automatic        

";
    assert_eq!(wide, expected);
    assert_eq!(cluster.good("delete ippool a", ""), "Successfully deleted 1 'IPPool' resource(s)\n");
    assert_eq!(cluster.bad("get ippool a", ""), "resource does not exist: IPPool(a)\n");
    assert_eq!(cluster.good("get ippool", ""), "NAME   CIDR   SELECTOR   \n\n");
}

#[test]
fn yaml_and_json_are_upstreams() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &(pool("a", "10.0.0.0/16") + &pool("b", "10.1.0.0/16")));
    let mask = |text: &str| {
        let lines = text.lines().map(|line| {
            let (start, _) = line.split_once(": ").unwrap_or((line, ""));
            let field = start.trim().trim_matches('"');
            if ["uid", "creationTimestamp", "resourceVersion"].contains(&field) {
                format!("{start}: X")
            } else {
                line.to_owned()
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let one = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  creationTimestamp: X
  name: a
  resourceVersion: X
  uid: X
spec:
  allowedUses:
  - Workload
  - Tunnel
  assignmentMode: Automatic
  blockSize: 26
  cidr: 10.0.0.0/16
  ipipMode: Never
  nodeSelector: all()
  vxlanMode: Never";
    assert_eq!(mask(&cluster.good("get ippool a -o yaml", "")), one);
    let list = mask(&cluster.good("get ippool -o yaml", ""));
    assert!(
        list.starts_with(
            "apiVersion: projectcalico.org/v3\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: IPPool\n"
        ),
        "{list}"
    );
    assert!(list.ends_with("\nkind: IPPoolList\nmetadata:\n  resourceVersion: X"), "{list}");
    let several = mask(&cluster.good("get ippool a b -o yaml", ""));
    assert!(several.starts_with("- apiVersion: projectcalico.org/v3\n  kind: IPPool\n"), "{several}");
    let json = mask(&cluster.good("get ippool a -o json", ""));
    let start = "{\n  \"kind\": \"IPPool\",\n  \"apiVersion\": \"projectcalico.org/v3\",\n  \"metadata\": {\n    \"name\": \"a\",\n";
    assert!(json.starts_with(start), "{json}");
    let export = cluster.good("get ippool a -o yaml --export", "");
    assert!(!export.contains("uid") && !export.contains("resourceVersion") && export.contains("name: a"), "{export}");
    cluster.good("delete ippool a", "");
    assert_eq!(cluster.good("create -f -", &export), "Successfully created 1 'IPPool' resource(s)\n");
}

#[test]
fn several_documents_and_directories_are_read_in_order() {
    let cluster = Cluster::new();
    cluster.file("d/2.yaml", &pool("b", "10.1.0.0/16"));
    cluster.file("d/1.yml", &(pool("a", "10.0.0.0/16") + &manifest("Tier", "t", "order: 10")));
    cluster.file("d/notes.txt", "no manifest");
    cluster.file("d/sub/3.json", r#"{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"c"},"spec":{"cidr":"10.2.0.0/16"}}"#);
    let directory = cluster.path("d").to_str().expect("UTF-8").to_owned();
    assert_eq!(cluster.good(&format!("apply -f {directory}"), ""), "Successfully applied 3 resource(s)\n");
    // A way back is not taken.
    std::os::unix::fs::symlink(&directory, std::path::Path::new(&directory).join("again")).expect("a link");
    assert_eq!(cluster.good(&format!("apply -R -f {directory}"), ""), "Successfully applied 4 resource(s)\n");
    assert_eq!(cluster.good(&format!("delete -R -f {directory}"), ""), "Successfully deleted 4 resource(s)\n");
    let empty = cluster.file("e/empty.yaml", "---\n");
    assert_eq!(cluster.bad(&format!("apply -f {empty}"), ""), format!("no resources specified in file {empty}\n"));
    assert_eq!(cluster.good(&format!("apply --skip-empty -f {empty}"), ""), "No resources specified\n");
    std::fs::remove_file(&empty).expect("removed");
    let directory = cluster.path("e").to_str().expect("UTF-8").to_owned();
    let error = cluster.bad(&format!("apply -f {directory}"), "");
    assert_eq!(error, format!("no resources specified in directory {directory}\n"));
}

#[test]
fn what_exists_and_what_does_not_is_told() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &pool("a", "10.0.0.0/16"));
    assert_eq!(
        cluster.bad("create -f -", &pool("a", "10.0.0.0/16")),
        "failed to create 'IPPool' resource: [resource already exists: IPPool(a)]\n"
    );
    assert_eq!(
        cluster.good("create --skip-exists -f -", &pool("a", "10.0.0.0/16")),
        "Successfully created 1 'IPPool' resource(s)\n"
    );
    let both = pool("a", "10.0.0.0/16") + &pool("b", "10.1.0.0/16");
    let ran = cluster.run("create -f -", &both);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out, "Partial success: created the first 1 out of 2 'IPPool' resources:\n");
    assert_eq!(ran.err, "hit error: [resource already exists: IPPool(a)]\n");
    assert_eq!(
        cluster.bad("replace -f -", &pool("c", "10.3.0.0/16")),
        "failed to replace 'IPPool' resource: [resource does not exist: IPPool(c)]\n"
    );
    let ran = cluster.run("delete ippool a cc", "");
    assert_eq!((ran.code, ran.out.as_str()), (1, "Successfully deleted 1 'IPPool' resource(s)\n"));
    assert_eq!(ran.err, "Failed to delete 'IPPool' resource: resource does not exist: IPPool(cc)\n");
    assert_eq!(cluster.good("delete -s ippool nothing", ""), "Successfully deleted 1 'IPPool' resource(s)\n");
    cluster.good("create -f -", &pool("default-ipv4-ippool", "10.0.0.0/16"));
    assert_eq!(
        cluster.bad("get ippool default-ipv4-ipool", ""),
        "resource does not exist: IPPool(default-ipv4-ipool); did you mean \"default-ipv4-ippool\"?\n"
    );
}

#[test]
fn nothing_is_written_when_anything_is_wrong() {
    let cluster = Cluster::new();
    let good = pool("a", "10.0.0.0/16");
    let policy = |tier: &str| manifest("GlobalNetworkPolicy", "p", &format!("tier: {tier}\nselector: all()"));
    for (bad, parts) in [
        (pool("b", "10.0.128.0/17"), vec!["IPPool(b)", "IPPool(a)", "10.0.0.0/16"]),
        (pool("b", "10.1.0.0/28"), vec!["IPPool b", "spec.cidr", "not smaller than one block"]),
        (policy("securty"), vec!["GlobalNetworkPolicy(p)", "Tier(securty)", "did you mean \"security\"?"]),
        (pool("b", "10.1.0.0/16").replace("cidr", "cdir"), vec!["document 3", "spec.cdir", "\"cidr\""]),
        (pool("Bad_Name", "10.1.0.0/16"), vec!["metadata.name", "\"Bad_Name\"", "DNS-1123"]),
        (pool("b", "10.1.0.0/16").replace("IPPool", "IPPol"), vec!["kind", "\"IPPol\"", "\"IPPool\""]),
        ("a: [\n".to_owned(), vec!["stdin:", "valid YAML"]),
    ] {
        let tier = manifest("Tier", "security", "order: 5");
        let error = cluster.bad("apply -f -", &(good.clone() + &tier + &bad));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!(cluster.good("get ippool", ""), "NAME   CIDR   SELECTOR   \n\n", "{error}");
        assert!(!cluster.good("get tier", "").contains("security"), "{error}");
    }
    let both = pool("b", "10.1.0.0/28") + &pool("Bad_Name", "10.2.0.0/16");
    let error = cluster.bad("validate -f -", &both);
    assert!(error.contains("document 1") && error.contains("document 2"), "{error}");
    assert_eq!(cluster.good("validate -f -", &good), "Successfully validated 1 'IPPool' resource(s)\n");
}

#[test]
fn pools_keep_their_range_and_block_size() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &pool("a", "10.0.0.0/16"));
    let error = cluster.bad("apply -f -", &pool("a", "10.1.0.0/16"));
    assert_eq!(
        error,
        "failed to apply 'IPPool' resource: [IPPool(a): spec.cidr: 10.1.0.0/16: expected 10.0.0.0/16: the range of a pool cannot be modified]\n"
    );
    let error = cluster.bad("replace -f -", &manifest("IPPool", "a", "cidr: 10.0.0.0/16\nblockSize: 27"));
    assert!(error.contains("spec.blockSize: 27: expected 26"), "{error}");
    cluster.good("apply -f -", &manifest("IPPool", "a", "cidr: 10.0.0.0/16\nnatOutgoing: true"));
    assert!(cluster.good("get pool a -o yaml", "").contains("natOutgoing: true"));
}

#[test]
fn tiers_guard_their_policies() {
    let cluster = Cluster::new();
    let policy = manifest("NetworkPolicy", "p", "tier: t\nselector: all()");
    let error = cluster.bad("create -f -", &policy);
    assert!(error.contains("NetworkPolicy(default/p): spec.tier: \"t\": resource does not exist: Tier(t)"), "{error}");
    // The order within the file does not matter.
    let both = policy + &manifest("Tier", "t", "order: 7");
    cluster.good("create -f -", &both);
    let error = cluster.bad("delete tier t", "");
    assert_eq!(
        error,
        "Failed to delete 'Tier' resource: operation delete is not supported on Tier(t): the tier is not empty: it has NetworkPolicy(default/p)\n"
    );
    for built_in in ["default", "kube-admin", "kube-baseline"] {
        assert!(cluster.bad(&format!("delete tier {built_in}"), "").contains("the tier is built in"));
    }
    let table = "\
NAME            ORDER   
default         1e+06   
kube-admin      1000    
kube-baseline   1e+07   
t               7       

";
    assert_eq!(cluster.good("get tiers", ""), table);
    assert_eq!(cluster.good("delete -f -", &both), "Successfully deleted 2 resource(s)\n");
    assert!(cluster.bad("delete clusterinfo default", "").contains("resource is readonly"));
}

#[test]
fn namespaces_are_kept_apart() {
    let cluster = Cluster::new();
    let policy = manifest("NetworkPolicy", "p", "selector: all()");
    cluster.good("apply -f -", &policy);
    cluster.good("apply -n prod -f -", &policy);
    assert_eq!(cluster.good("get np", ""), "NAME   TIER      \np      default   \n\n");
    assert_eq!(cluster.good("get np -n prod", ""), "NAMESPACE   NAME   TIER      \nprod        p      default   \n\n");
    let all = "NAMESPACE   NAME   TIER      \ndefault     p      default   \nprod        p      default   \n\n";
    assert_eq!(cluster.good("get np -A", ""), all);
    assert_eq!(cluster.good("get np -a", ""), all);
    let wide = "NAME   TIER      ORDER   SELECTOR   \np      default   <nil>   all()      \n\n";
    assert_eq!(cluster.good("get np p -o wide", ""), wide);
    assert!(cluster.bad("get np -A -n prod", "").starts_with("cannot use both"));
    assert_eq!(cluster.bad("get node -n prod", ""), "Node is not namespaced\n");
    let named = policy.replace("name: p", "name: p\n  namespace: dev");
    assert!(cluster.bad("apply -n prod -f -", &named).contains("dev != prod"));
    cluster.good("delete np p -n prod", "");
    assert_eq!(cluster.bad("get np p -n prod", ""), "resource does not exist: NetworkPolicy(prod/p)\n");
    cluster.good("get np p", "");
}

#[test]
fn an_old_revision_is_refused() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &pool("a", "10.0.0.0/16"));
    let old = cluster.good("get ippool a -o yaml", "");
    let changed = old.replace("spec:", "spec:\n  natOutgoing: true");
    cluster.good("replace -f -", &changed);
    for verb in ["replace", "apply"] {
        let error = cluster.bad(&format!("{verb} -f -"), &changed);
        assert!(error.contains("update conflict: IPPool(a): metadata.resourceVersion"), "{error}");
    }
    assert!(cluster.bad("delete -f -", &changed).contains("update conflict: IPPool(a)"));
    assert!(cluster.bad("create -f -", &old.replace("name: a", "name: z")).contains("expected none"));
    let now = cluster.good("get ippool a -o yaml", "");
    cluster.good("delete -f -", &now);
}

#[test]
fn what_is_as_wanted_is_not_written_again() {
    let cluster = Cluster::new();
    let text = pool("a", "10.0.0.0/16") + &manifest("NetworkPolicy", "p", "selector: all()");
    cluster.good("apply -f -", &text);
    let before = cluster.good("get ippool a -o yaml", "") + &cluster.good("get np p -o yaml", "");
    assert_eq!(cluster.good("apply -f -", &text), "Successfully applied 2 resource(s)\n");
    let after = cluster.good("get ippool a -o yaml", "") + &cluster.good("get np p -o yaml", "");
    assert_eq!(before, after);
    assert!(after.contains("projectcalico.org/tier: default") && after.contains("- Ingress"), "{after}");
}

#[test]
fn a_resource_that_is_twice_in_a_file_ends_as_the_later_one() {
    let cluster = Cluster::new();
    let text = manifest("Tier", "t", "order: 1") + &manifest("Tier", "t", "order: 2");
    assert_eq!(cluster.good("apply -f -", &text), "Successfully applied 2 'Tier' resource(s)\n");
    assert!(cluster.good("get tier t -o yaml", "").contains("order: 2"));
}

#[test]
fn writers_at_the_same_time_all_get_their_turn() {
    let cluster = Cluster::new();
    std::thread::scope(|scope| {
        for i in 0..6 {
            let cluster = &cluster;
            scope.spawn(move || {
                for j in 0..5 {
                    let text = manifest("Tier", "t", &format!("order: {}", i * 10 + j));
                    assert_eq!(cluster.good("apply -f -", &text), "Successfully applied 1 'Tier' resource(s)\n");
                }
            });
        }
    });
    assert!(cluster.good("get tier t", "").lines().count() == 3);
}

#[test]
fn what_is_missing_prints_no_table() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &pool("a", "10.0.0.0/16"));
    let ran = cluster.run("get ippool x -o json", "");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let ran = cluster.run("get ippool a x", "");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("10.0.0.0/16") && ran.err.contains("IPPool(x)"), "{ran:?}");
    let empty = cluster.good("get nodes -o json", "");
    assert!(empty.contains("\"kind\": \"NodeList\"") && empty.contains("\"items\": []"), "{empty}");
}

#[test]
fn a_resource_that_is_given_twice_is_created_once_and_it_is_said_so() {
    let cluster = Cluster::new();
    let twice = manifest("NetworkSet", "s", "nets: [10.0.0.0/8]") + &manifest("NetworkSet", "s", "nets: [11.0.0.0/8]");
    let ran = cluster.run("create -f -", &twice);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (1, "Partial success: created the first 1 out of 2 'NetworkSet' resources:\n")
    );
    assert_eq!(
        ran.err,
        "hit error: [NetworkSet(default/s) is given more than once: create takes each resource once]\n"
    );
    assert!(cluster.good("get networkset s -o yaml", "").contains("10.0.0.0/8"));
    // What the second of them comes to is judged after the first is written, and what was written is told.
    let pools = manifest("IPPool", "p", "cidr: 10.0.0.0/16") + &manifest("IPPool", "p", "cidr: 10.1.0.0/16");
    let ran = cluster.run("apply -f -", &pools);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (1, "Partial success: applied the first 1 out of 2 'IPPool' resources:\n")
    );
    assert!(ran.err.starts_with("hit error: [IPPool(p): spec.cidr: 10.1.0.0/16: expected 10.0.0.0/16"), "{ran:?}");
    assert!(cluster.good("get ippool p -o yaml", "").contains("10.0.0.0/16"));
    // Where the last one counts, it does.
    assert_eq!(cluster.good("apply -f -", &twice), "Successfully applied 2 'NetworkSet' resource(s)\n");
    assert!(cluster.good("get networkset s -o yaml", "").contains("11.0.0.0/8"));
    assert_eq!(cluster.good("create --skip-exists -f -", &twice), "Successfully created 2 'NetworkSet' resource(s)\n");
}
