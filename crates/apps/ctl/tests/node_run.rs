//! `calicoctl node run`: the command of Docker that it shows and runs, with a `docker` that only writes down what it was
//! told.

mod common;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;

use common::Cluster;
use similar_asserts::assert_eq;

/// Settings of etcd, and a `docker` that is first in the path. It notes its arguments and whether it was given a password,
/// and its log is that of a node.
fn cluster(log: &str) -> Cluster {
    let mut cluster = Cluster::new();
    let notes = cluster.path("notes");
    let script = format!(
        "#!/bin/sh\necho \"$@ [$ETCD_PASSWORD]\" >> {}\nif [ \"$1\" = logs ]; then {log}; fi\n",
        notes.display()
    );
    let docker = cluster.file("bin/docker", &script);
    std::fs::set_permissions(docker, std::fs::Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:/usr/bin:/bin", cluster.path("bin").display());
    for (name, value) in [
        ("PATH", path.as_str()),
        ("HOSTNAME", "Host-1"),
        ("DATASTORE_TYPE", "etcdv3"),
        ("ETCD_ENDPOINTS", "https://10.0.0.1:2379"),
        ("ETCD_CA_CERT_FILE", "/etc/pki/ca.pem"),
        ("ETCD_USERNAME", "node"),
        ("ETCD_PASSWORD", "very-secret"),
    ] {
        cluster.env.insert(name.to_owned(), OsString::from(value));
    }
    cluster.env.remove("TORTIE_SQLITE");
    cluster
}

fn notes(cluster: &Cluster) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.path("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

const RUN: &str = "run --net=host --privileged --name=calico-node -d --restart=always -e NODENAME=host-1 \
    -e CALICO_NETWORKING_BACKEND=bird -e CALICO_MANAGE_CNI=false -e AS=65546 -e IP=10.0.0.9 -e DATASTORE_TYPE=etcdv3 \
    -e ETCD_ENDPOINTS=https://10.0.0.1:2379 -e ETCD_CA_CERT_FILE=/etc/calico/certs/ca_cert.crt -e ETCD_USERNAME \
    -e ETCD_PASSWORD -v /var/log/calico:/var/log/calico -v /var/run/calico:/var/run/calico \
    -v /var/lib/calico:/var/lib/calico -v /lib/modules:/lib/modules -v /run:/run \
    -v /etc/pki/ca.pem:/etc/calico/certs/ca_cert.crt tortie:test";

#[test]
fn the_node_is_started_and_followed_until_it_is_in_sync() {
    let cluster = cluster("echo starting; echo in sync: all; exec sleep 60");
    let said = cluster.good("node run --ip=10.0.0.9 --as 1.10 --node-image tortie:test", "");
    assert!(said.contains(&format!("\ndocker {RUN}\n")) && said.ends_with("in sync: all\n"), "{said}");
    assert!(!said.contains("very-secret"), "{said}");
    assert_eq!(
        notes(&cluster),
        ["rm -f calico-node", RUN, "logs --follow calico-node"].map(|line| format!("{line} [very-secret]"))
    );
}

#[test]
fn a_dry_run_shows_the_command_and_runs_nothing() {
    let cluster = cluster("true");
    let said = cluster.good(
        "node run --dryrun --init-system --name n1 --backend none --no-default-ippools --ip-autodetection-method \
         interface=eth.* --felix-config /etc/felix.cfg",
        "",
    );
    for part in [
        "docker run --net=host --privileged --name=calico-node --rm -e NODENAME=n1 -e CALICO_NETWORKING_BACKEND=none",
        "-e NO_DEFAULT_POOLS=true -e IP_AUTODETECTION_METHOD=interface=eth.*",
        "-v /etc/felix.cfg:/etc/calico/felix.cfg ",
        "docker stop calico-node",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(notes(&cluster), Vec::<String>::new());
}

#[test]
fn what_keeps_the_node_from_starting_is_named() {
    let mut cluster = cluster("echo no etcd");
    for (line, part) in [
        ("node run --ip fd00::1", "--ip is wrong IP version"),
        ("node run --ip6 x", "--ip6: \"x\": expected an IPv6 address or autodetect"),
        ("node run", "the node has ended"),
    ] {
        let error = cluster.bad(line, "");
        assert!(error.contains("error executing command") && error.contains(part), "{line}: {error}");
    }
    cluster.file("bin/docker", "#!/bin/sh\n[ $1 = rm ] && exit\necho no such image >&2; exit 125\n");
    let error = cluster.bad("node run", "");
    assert!(error.contains("| no such image"), "{error}");
    let _ = cluster.env.insert("DATASTORE_TYPE".to_owned(), "sqlite".into());
    cluster.env.retain(|name, _| !name.starts_with("ETCD_"));
    let error = cluster.bad("node run", "");
    assert!(error.contains("tortie node"), "{error}");
}
