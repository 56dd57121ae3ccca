//! A Secret is followed by who may list and watch that one alone; what it holds, its absence and refusals are told.

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tortie_store_kubernetes::{Cluster as Client, Options, Secret};

use common::{Cluster, READER};

type News = Result<Option<Secret>, String>;

fn until(news: &Receiver<News>, what: &str, is: impl Fn(&News) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let told = news.recv_timeout(left).unwrap_or_else(|_| panic!("never told: {what}"));
        if is(&told) {
            return;
        }
    }
}

fn secret(name: &str, mesh: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"mesh": mesh}})
}

#[test]
fn a_secret_is_told_whenever_it_changes() {
    let Some(cluster) = Cluster::start("secrets", &[]) else { return };
    let client = Client::open(Options { token: READER.to_owned(), ..cluster.options(None) }).expect("a thread");
    let (tell, news) = channel();
    let followed = client.follow_secret("default", "bgp", move |told| drop(tell.send(told)));
    until(&news, "it may not be read", |told| {
        told.as_ref().is_err_and(|text| text.contains("Secret default/bgp") && text.contains("may not"))
    });

    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rule =
        json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["bgp"], "verbs": ["list", "watch"]});
    let role = json!({"metadata": {"name": "r"}, "rules": [rule]});
    cluster.object(Method::POST, &format!("{roles}/roles"), Some(&role));
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": group, "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}]});
    cluster.object(Method::POST, &format!("{roles}/rolebindings"), Some(&binding));
    until(&news, "there is none", |told| matches!(told, Ok(None)));

    let holds = |word: &'static str| {
        move |told: &News| {
            told.as_ref().is_ok_and(|told| told.as_ref().is_some_and(|one| one.get("mesh") == Some(word.as_bytes())))
        }
    };
    let path = "/api/v1/namespaces/default/secrets";
    cluster.object(Method::POST, path, Some(&secret("other", "not this one")));
    cluster.object(Method::POST, path, Some(&secret("bgp", "first")));
    until(&news, "the first password", holds("first"));
    cluster.object(Method::PATCH, &format!("{path}/bgp"), Some(&json!({"stringData": {"mesh": "second"}})));
    until(&news, "the second password", holds("second"));
    cluster.object(Method::DELETE, &format!("{path}/bgp"), None);
    until(&news, "it is gone", |told| matches!(told, Ok(None)));
    drop(followed);
    let deadline = Instant::now() + Duration::from_secs(10);
    let ended = || matches!(news.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    while !ended() {
        assert!(Instant::now() < deadline, "it is followed no more");
        std::thread::sleep(Duration::from_millis(20));
    }
}
