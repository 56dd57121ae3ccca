//! Who a CNI call is about: names of the endpoint, its interface and its address handle, as upstream makes them.

use tortie_api::wep::{self, EndpointName};
use tortie_cni::conf::Conf;
use tortie_cni::spec::{CniError, code};
use tortie_cni::wire::Request;

/// The workload of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `k8s` or `cni`.
    pub orchestrator: &'static str,
    /// Namespace of the endpoint.
    pub namespace: String,
    /// The pod; empty outside Kubernetes.
    pub pod: String,
    /// The pod's uid, if the runtime told it.
    pub uid: String,
    /// The service account, if the runtime told it.
    pub service_account: String,
    /// The container.
    pub container_id: String,
    /// Name of the interface in the pod.
    pub ifname: String,
    /// Name of the WorkloadEndpoint.
    pub endpoint: String,
    /// Name of the interface on the host.
    pub interface: String,
    /// Handle of the addresses.
    pub handle: String,
}

impl Workload {
    /// Reads a call.
    pub fn of(request: &Request, conf: &Conf, node: &str) -> Result<Workload, CniError> {
        let arg = |name: &str| request.args.get(name).cloned().unwrap_or_default();
        let (pod, namespace) = (arg("K8S_POD_NAME"), arg("K8S_POD_NAMESPACE"));
        for (what, text) in [("CNI_CONTAINERID", &request.container_id), ("CNI_IFNAME", &request.ifname)] {
            if text.is_empty() || text.contains('/') || text.starts_with('.') {
                return Err(CniError::new(code::INVALID_ENVIRONMENT, format!("{what} is {text:?}: expected a name")));
            }
        }
        for (what, text) in [("K8S_POD_NAMESPACE", &namespace), ("K8S_POD_NAME", &pod)] {
            if !text.is_empty() && !is_dns_name(text) {
                return Err(CniError::new(
                    code::INVALID_ENVIRONMENT,
                    format!("CNI_ARGS: {what}={text} is no DNS name (lower-case letters, digits, '-' and '.')"),
                ));
            }
        }
        let container_id = request.container_id.clone();
        let ifname = request.ifname.clone();
        let handle = format!("{}.{container_id}", conf.name);
        if pod.is_empty() {
            let name = EndpointName {
                node: node.to_owned(),
                orchestrator: "cni".to_owned(),
                workload: container_id.clone(),
                endpoint: ifname.clone(),
            };
            let endpoint = name.join().map_err(bad_name)?;
            let short: String = container_id.chars().take(11).collect();
            return Ok(Workload {
                orchestrator: "cni",
                namespace: "default".to_owned(),
                pod,
                uid: String::new(),
                service_account: String::new(),
                endpoint,
                interface: format!("cali{short}"),
                container_id,
                ifname,
                handle,
            });
        }
        if namespace.is_empty() {
            return Err(CniError::new(
                code::INVALID_ENVIRONMENT,
                format!("CNI_ARGS names the pod {pod:?} (K8S_POD_NAME) without its namespace (K8S_POD_NAMESPACE)"),
            ));
        }
        Ok(Workload {
            orchestrator: "k8s",
            endpoint: EndpointName::of_pod(node, &pod, &ifname).join().map_err(bad_name)?,
            interface: wep::interface_name("cali", &namespace, &pod),
            uid: arg("K8S_POD_UID"),
            service_account: arg("K8S_POD_SERVICE_ACCOUNT"),
            namespace,
            pod,
            container_id,
            ifname,
            handle,
        })
    }

    /// The profiles of a new endpoint: those of its namespace and service account, or the network's own.
    pub fn profiles(&self, conf: &Conf, account: &str) -> Vec<String> {
        if self.orchestrator == "k8s" && conf.policy.kind == "k8s" {
            let account = if account.is_empty() { "default" } else { account };
            vec![format!("kns.{}", self.namespace), format!("ksa.{}.{account}", self.namespace)]
        } else {
            vec![conf.name.clone()]
        }
    }
}

fn bad_name(error: impl std::fmt::Display) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("no endpoint name can be made: {error}"))
}

/// Kubernetes gives pods and namespaces no other names (RFC 1123); a '/' would end in another object's key.
fn is_dns_name(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tortie_cni::wire::Operation;

    fn workload(container: &str, args: &[(&str, &str)]) -> Result<Workload, CniError> {
        let conf = Conf::read(r#"{"name":"net","cniVersion":"1.0.0"}"#).expect("a good one");
        let request = Request {
            operation: Operation::Add,
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            netns: String::new(),
            args: args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
            conf: serde_json::Value::Null,
            ipam: None,
        };
        Workload::of(&request, &conf, "node-1")
    }

    #[test]
    fn names_are_upstreams() {
        let pod = [("K8S_POD_NAME", "web-1"), ("K8S_POD_NAMESPACE", "shop"), ("K8S_POD_UID", "x")];
        let found = workload("c1", &pod).expect("a pod");
        assert_eq!(found.endpoint, "node--1-k8s-web--1-eth0");
        assert_eq!((found.handle.as_str(), found.orchestrator), ("net.c1", "k8s"));
        let found = workload("0123456789abcdef", &[]).expect("a container");
        assert_eq!((found.interface.as_str(), found.namespace.as_str()), ("cali0123456789a", "default"));
    }

    #[test]
    fn what_could_be_a_path_or_another_objects_key_is_refused() {
        for (container, args) in [
            ("../x", &[][..]),
            ("", &[]),
            ("c", &[("K8S_POD_NAME", "a/b"), ("K8S_POD_NAMESPACE", "ns")]),
            ("c", &[("K8S_POD_NAME", "a"), ("K8S_POD_NAMESPACE", "ns/../x")]),
            ("c", &[("K8S_POD_NAME", "a")]),
        ] {
            assert_eq!(workload(container, args).expect_err(container).code, code::INVALID_ENVIRONMENT);
        }
    }
}
