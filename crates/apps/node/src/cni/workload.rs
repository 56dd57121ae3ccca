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
            service_account: arg("K8S_POD_SERVICE_ACCOUNT"),
            namespace,
            pod,
            container_id,
            ifname,
            handle,
        })
    }

    /// The profiles of a new endpoint: those of its namespace and service account, or the network's own.
    pub fn profiles(&self, conf: &Conf) -> Vec<String> {
        if self.orchestrator == "k8s" && conf.policy.kind == "k8s" {
            let account = if self.service_account.is_empty() { "default" } else { &self.service_account };
            vec![format!("kns.{}", self.namespace), format!("ksa.{}.{account}", self.namespace)]
        } else {
            vec![conf.name.clone()]
        }
    }
}

fn bad_name(error: impl std::fmt::Display) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("no endpoint name can be made: {error}"))
}
