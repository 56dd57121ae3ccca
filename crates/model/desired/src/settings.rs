//! Settings that shape the rules of the whole node.

use std::sync::Arc;

/// What happens to packets from a workload to the node itself, after the workload's own policy allowed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAction {
    /// Drop them (upstream's default).
    Drop,
    /// Accept them.
    Accept,
    /// Leave them to the host's other rules.
    Return,
}

/// Node-wide settings of the dataplane; from FelixConfiguration, `FELIX_*` and their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Prefixes of workload interface names; an interface that matches and belongs to no endpoint is cut off.
    pub interface_prefixes: Vec<Arc<str>>,
    /// `defaultEndpointToHostAction`.
    pub endpoint_to_host: HostAction,
    /// Whether denied packets are rejected instead of dropped (`iptablesFilterDenyAction`).
    pub reject_denied: bool,
    /// Prefix of kernel log lines of `Log` rules.
    pub log_prefix: Arc<str>,
    /// Whether packets of invalid conntrack state pass (`disableConntrackInvalidCheck`).
    pub accept_invalid: bool,
    /// Whether IPv6 is managed; if not, workloads get no IPv6 at all.
    pub ipv6: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interface_prefixes: vec![Arc::from("cali")],
            endpoint_to_host: HostAction::Drop,
            reject_denied: false,
            log_prefix: Arc::from("calico-packet"),
            accept_invalid: false,
            ipv6: true,
        }
    }
}
