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
