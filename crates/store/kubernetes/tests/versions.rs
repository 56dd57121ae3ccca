//! A custom resource definition of another version is told as a fault; its objects don't count as absent.

mod common;

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tortie_api::Kind;
use tortie_facts::Filter;
use tortie_store::{Reader, StoreError};
use tortie_store_kubernetes::Group;

use common::Cluster;

#[test]
fn a_definition_of_another_version_is_a_fault_and_no_absence() {
    let Some(cluster) = Cluster::start("versions", &[]) else { return };
    let store = cluster.store(Some(Group::V1));
    let both = Filter::Any([Kind::GlobalNetworkPolicy, Kind::IpPool].map(Filter::Kind).to_vec());
    assert!(store.list(&both).is_ok());
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/globalnetworkpolicies.crd.projectcalico.org";
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |name: &str, served: bool, storage: bool| json!({"name": name, "served": served, "storage": storage, "schema": schema});
    let newer = json!({"spec": {"versions": [version("v1", false, true), version("v7", true, false)]}});
    cluster.object(Method::PATCH, path, Some(&newer));
    let deadline = Instant::now() + Duration::from_secs(60);
    for filter in [both, Filter::Kind(Kind::GlobalNetworkPolicy)] {
        let text = loop {
            assert!(Instant::now() < deadline, "it is never told");
            match store.list(&filter) {
                Err(StoreError::Unusable(text)) if text.contains("v7") => break text,
                // The server's own picture of its types comes some moments later.
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        for part in ["globalnetworkpolicies.crd.projectcalico.org", "version v7 only", "crd.projectcalico.org/v1"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    assert!(store.list(&Filter::Kind(Kind::IpPool)).is_ok(), "other types are not concerned");
}
