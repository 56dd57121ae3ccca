//! The one part of a Service that is written: the addresses of its load balancer.

use std::net::IpAddr;

use serde_json::{Value as Json, json};
use tortie_store::StoreError;

use crate::fault::{Fault, Verb};
use crate::types::Type;
use crate::write::send;
use crate::{Group, KubernetesStore};

/// The patch of a Service's status; it is refused where the Service is another one by now.
fn patch(uid: &str, addresses: &[IpAddr]) -> Json {
    let ingress: Vec<Json> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {"uid": uid}, "status": {"loadBalancer": {"ingress": ingress}}})
}

impl KubernetesStore {
    /// Tells the addresses of a Service's load balancer. A Service that is gone, or is another one by now, is no error:
    /// nobody is to be told.
    ///
    /// # Errors
    /// If the API server can't be reached, or refuses.
    pub fn set_load_balancer(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        addresses: &[IpAddr],
    ) -> Result<(), StoreError> {
        let path = format!("{}/{name}/status", Type::Service.path(Group::V1, namespace));
        let patch = patch(uid, addresses);
        let done = self.wait(|api| async move { send(&api, Type::Service, Verb::Patch, path, Some(&patch)).await });
        match done {
            Ok(_) | Err(Fault::NotFound { no_type: false } | Fault::Conflict) => Ok(()),
            Err(Fault::Refused(text)) if text.contains("metadata.uid") => Ok(()),
            Err(fault) => Err(fault.of_read(Type::Service, Group::V1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_holds_the_addresses_alone() {
        let addresses = ["10.0.0.1".parse().expect("an address"), "fd00::1".parse().expect("an address")];
        let expected = json!({"metadata": {"uid": "u"},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}});
        assert_eq!(patch("u", &addresses), expected);
        assert_eq!(patch("u", &[])["status"]["loadBalancer"]["ingress"], json!([]));
    }
}
