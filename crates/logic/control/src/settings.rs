//! What the controllers run with: the KubeControllersConfiguration, over which upstream's variables go.

use std::collections::BTreeMap;
use std::time::Duration;

use tortie_api::kinds::{
    AutoHostEndpointConfig, ControllersConfig, KubeControllersConfigurationSpec, KubeControllersConfigurationStatus,
    LoadBalancerControllerConfig, MigrationControllerConfig, NamespaceControllerConfig, NodeControllerConfig,
    PolicyControllerConfig, ServiceAccountControllerConfig, Toggle, WorkloadEndpointControllerConfig,
};
use tortie_api::{GoDuration, KubeControllersConfiguration, Metadata};

/// Upstream's variables.
pub const VARIABLES: [&str; 7] = [
    "LOG_LEVEL",
    "RECONCILER_PERIOD",
    "ENABLED_CONTROLLERS",
    "COMPACTION_PERIOD",
    "HEALTH_ENABLED",
    "SYNC_NODE_LABELS",
    "AUTO_HOST_ENDPOINTS",
];

const CONTROLLERS: &str = "node, policy, namespace (or profile), serviceaccount, workloadendpoint, loadbalancer";

/// A variable that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongVariable {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub value: String,
    /// What it may hold.
    pub expected: String,
}

impl std::fmt::Display for WrongVariable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WrongVariable { name, value, expected } = self;
        write!(f, "environment variable {name}: {value:?}: expected {expected}")
    }
}

/// What is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The settings, each with its value.
    pub spec: KubeControllersConfigurationSpec,
    /// The variables that took part.
    pub variables: BTreeMap<String, String>,
}

/// The configuration of a cluster that has none: upstream's.
pub fn default_configuration() -> KubeControllersConfiguration {
    let period = || Some(GoDuration::from_seconds(300));
    let spec = KubeControllersConfigurationSpec {
        log_severity_screen: "Info".to_owned(),
        health_checks: Some(Toggle::Enabled),
        etcdv3_compaction_period: Some(GoDuration::from_seconds(600)),
        prometheus_metrics_port: Some(9094),
        controllers: ControllersConfig {
            node: Some(NodeControllerConfig {
                reconciler_period: period(),
                sync_labels: Some(Toggle::Enabled),
                host_endpoint: Some(AutoHostEndpointConfig {
                    auto_create: Some(Toggle::Disabled),
                    create_default_host_endpoint: Some(Toggle::Enabled),
                    templates: Vec::new(),
                }),
                leak_grace_period: Some(GoDuration::from_seconds(900)),
            }),
            policy: Some(PolicyControllerConfig { reconciler_period: period() }),
            workload_endpoint: Some(WorkloadEndpointControllerConfig { reconciler_period: period() }),
            service_account: Some(ServiceAccountControllerConfig { reconciler_period: period() }),
            namespace: Some(NamespaceControllerConfig { reconciler_period: period() }),
            load_balancer: Some(LoadBalancerControllerConfig { assign_ips: Some(Default::default()) }),
            migration: Some(MigrationControllerConfig { policy_name_migrator: Some(Toggle::Enabled) }),
        },
        debug_profile_port: None,
    };
    KubeControllersConfiguration { metadata: Metadata::named("default"), spec, ..Default::default() }
}

impl Running {
    /// Merges a stored configuration with the environment. `kubernetes`: the facts are in the Kubernetes API, whose
    /// nodes have their labels already.
    ///
    /// # Errors
    /// The first variable that can't be used.
    pub fn new(
        stored: &KubeControllersConfigurationSpec,
        variable: impl Fn(&str) -> Option<String>,
        kubernetes: bool,
    ) -> Result<Running, WrongVariable> {
        let mut running = Running { spec: stored.clone(), variables: BTreeMap::new() };
        for name in VARIABLES {
            if let Some(value) = variable(name) {
                running.apply(name, &value)?;
                running.variables.insert(name.to_owned(), value);
            }
        }
        let spec = &mut running.spec;
        spec.health_checks.get_or_insert(Toggle::Enabled);
        spec.prometheus_metrics_port.get_or_insert(9094);
        spec.etcdv3_compaction_period.get_or_insert(GoDuration::from_seconds(600));
        if let Some(node) = &mut spec.controllers.node {
            node.sync_labels.get_or_insert(Toggle::Enabled);
            node.leak_grace_period.get_or_insert(GoDuration::from_seconds(900));
            let hosts = node.host_endpoint.get_or_insert_default();
            hosts.auto_create.get_or_insert(Toggle::Disabled);
            hosts.create_default_host_endpoint.get_or_insert(Toggle::Enabled);
            if kubernetes {
                node.sync_labels = Some(Toggle::Disabled);
            }
        }
        if kubernetes {
            running.variables.insert("DATASTORE_TYPE".to_owned(), "kubernetes".to_owned());
        }
        Ok(running)
    }

    fn apply(&mut self, name: &'static str, value: &str) -> Result<(), WrongVariable> {
        let wrong = |expected: &str| WrongVariable { name, value: value.to_owned(), expected: expected.to_owned() };
        let truth = || match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Toggle::Enabled),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Toggle::Disabled),
            _ => Err(wrong("true or false")),
        };
        let duration = || value.parse::<GoDuration>().map_err(|_| wrong("a duration such as 5m or 0s"));
        match name {
            "LOG_LEVEL" => {
                const LEVELS: [&str; 8] = ["none", "trace", "debug", "info", "warning", "error", "fatal", "panic"];
                let known = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(value)) || value == "warn";
                if !known {
                    return Err(wrong("debug, info, warning, error, fatal or panic"));
                }
                value.clone_into(&mut self.spec.log_severity_screen);
            }
            "RECONCILER_PERIOD" => self.period(duration()?),
            "ENABLED_CONTROLLERS" => self.enabled(value).map_err(|expected| wrong(&expected))?,
            "COMPACTION_PERIOD" => self.spec.etcdv3_compaction_period = Some(duration()?),
            "HEALTH_ENABLED" => self.spec.health_checks = Some(truth()?),
            "SYNC_NODE_LABELS" => {
                let wanted = truth()?;
                if let Some(node) = &mut self.spec.controllers.node {
                    node.sync_labels = Some(wanted);
                }
            }
            _ => {
                let wanted = match value.to_ascii_lowercase().as_str() {
                    "enabled" => Toggle::Enabled,
                    "disabled" => Toggle::Disabled,
                    _ => return Err(wrong("enabled or disabled")),
                };
                if let Some(node) = &mut self.spec.controllers.node {
                    node.host_endpoint = Some(AutoHostEndpointConfig {
                        auto_create: Some(wanted),
                        create_default_host_endpoint: Some(Toggle::Enabled),
                        templates: Vec::new(),
                    });
                }
            }
        }
        Ok(())
    }

    fn period(&mut self, period: GoDuration) {
        let ControllersConfig { node: _, policy, workload_endpoint, service_account, namespace, .. } =
            &mut self.spec.controllers;
        let periods = [
            policy.as_mut().map(|one| &mut one.reconciler_period),
            workload_endpoint.as_mut().map(|one| &mut one.reconciler_period),
            service_account.as_mut().map(|one| &mut one.reconciler_period),
            namespace.as_mut().map(|one| &mut one.reconciler_period),
        ];
        for one in periods.into_iter().flatten() {
            *one = Some(period);
        }
    }

    /// Only the controllers of a list run.
    fn enabled(&mut self, list: &str) -> Result<(), String> {
        let stored = std::mem::take(&mut self.spec.controllers);
        let to = &mut self.spec.controllers;
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "node" => to.node = Some(stored.node.clone().unwrap_or_default()),
                "policy" => to.policy = Some(stored.policy.clone().unwrap_or_default()),
                "profile" | "namespace" => to.namespace = Some(stored.namespace.clone().unwrap_or_default()),
                "serviceaccount" => to.service_account = Some(stored.service_account.clone().unwrap_or_default()),
                "workloadendpoint" => to.workload_endpoint = Some(stored.workload_endpoint.clone().unwrap_or_default()),
                "loadbalancer" => to.load_balancer = Some(stored.load_balancer.clone().unwrap_or_default()),
                "flannelmigration" => {
                    return Err(format!("{CONTROLLERS} (this version does not migrate from flannel)"));
                }
                _ => return Err(CONTROLLERS.to_owned()),
            }
        }
        to.migration = stored.migration;
        Ok(())
    }

    /// How long an address must seem leaked; `None`: such addresses stay.
    pub fn leak_grace(&self) -> Option<Duration> {
        let period = self.spec.controllers.node.as_ref()?.leak_grace_period?;
        Some(period.as_std()).filter(|period| !period.is_zero())
    }

    /// Whether labels of Kubernetes' nodes are copied.
    pub fn syncs_labels(&self) -> bool {
        self.spec.controllers.node.as_ref().is_some_and(|node| node.sync_labels == Some(Toggle::Enabled))
    }

    /// How host endpoints are made; `None`: the controller does not run.
    pub fn host_endpoints(&self) -> Option<&AutoHostEndpointConfig> {
        self.spec.controllers.node.as_ref()?.host_endpoint.as_ref()
    }

    /// As it is reported.
    pub fn status(&self) -> KubeControllersConfigurationStatus {
        KubeControllersConfigurationStatus {
            running_config: Some(self.spec.clone()),
            environment_vars: self.variables.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)], kubernetes: bool) -> Result<Running, WrongVariable> {
        let variable = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Running::new(&default_configuration().spec, variable, kubernetes)
    }

    #[test]
    fn the_defaults_are_upstreams() {
        let running = with(&[], false).expect("good");
        assert_eq!(running.leak_grace(), Some(Duration::from_secs(900)));
        assert!(running.syncs_labels());
        assert_eq!(running.host_endpoints().and_then(|hosts| hosts.auto_create), Some(Toggle::Disabled));
        assert_eq!(running.spec.prometheus_metrics_port, Some(9094));
        let running = with(&[], true).expect("good");
        assert!(!running.syncs_labels(), "Kubernetes' nodes have them already");
        assert_eq!(running.variables["DATASTORE_TYPE"], "kubernetes");
    }

    #[test]
    fn variables_go_first_and_are_reported() {
        let pairs = [
            ("ENABLED_CONTROLLERS", "node,policy"),
            ("RECONCILER_PERIOD", "1m"),
            ("SYNC_NODE_LABELS", "false"),
            ("AUTO_HOST_ENDPOINTS", "enabled"),
            ("LOG_LEVEL", "debug"),
            ("HEALTH_ENABLED", "false"),
            ("COMPACTION_PERIOD", "0s"),
        ];
        let running = with(&pairs, false).expect("good");
        let ControllersConfig { policy, namespace, .. } = &running.spec.controllers;
        assert!(namespace.is_none() && policy.is_some());
        assert!(!running.syncs_labels());
        assert_eq!(running.host_endpoints().and_then(|hosts| hosts.auto_create), Some(Toggle::Enabled));
        assert_eq!(running.spec.health_checks, Some(Toggle::Disabled));
        assert_eq!(running.status().environment_vars.len(), pairs.len());
    }

    #[test]
    fn a_grace_period_of_nothing_switches_the_collection_of_leaks_off() {
        let mut spec = default_configuration().spec;
        spec.controllers.node.as_mut().expect("it has one").leak_grace_period = Some(GoDuration(0));
        assert_eq!(Running::new(&spec, |_| None, false).expect("good").leak_grace(), None);
    }

    #[test]
    fn a_variable_that_is_wrong_is_named() {
        for (name, value, part) in [
            ("ENABLED_CONTROLLERS", "node,polcy", "serviceaccount"),
            ("ENABLED_CONTROLLERS", "flannelmigration", "flannel"),
            ("SYNC_NODE_LABELS", "maybe", "true or false"),
            ("AUTO_HOST_ENDPOINTS", "yes", "enabled or disabled"),
            ("COMPACTION_PERIOD", "10", "10m"),
            ("LOG_LEVEL", "loud", "debug"),
        ] {
            let error = with(&[(name, value)], false).expect_err(value).to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
            assert!(error.contains(part) || part == "10m", "{error}");
        }
    }
}
