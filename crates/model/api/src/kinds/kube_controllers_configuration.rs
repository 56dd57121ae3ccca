//! KubeControllersConfiguration: settings of the controllers; the one object is named `default`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::GoDuration;
use crate::check::{Checked, Findings};
use crate::check_metadata;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::kinds::bgp_configuration::Toggle;
use crate::path::Path;
use crate::resource::resource;
use crate::{IpNetText, LabelMap};

resource! {
    /// Settings of the controllers; the one object is named `default`.
    KubeControllersConfiguration { spec: KubeControllersConfigurationSpec, status: KubeControllersConfigurationStatus }
}

/// The specification of a KubeControllersConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeControllersConfigurationSpec {
    /// The lowest severity that is logged.
    #[serde(skip_serializing_if = "empty")]
    pub log_severity_screen: String,
    /// Whether health is reported; none means `Enabled`.
    #[serde(skip_serializing_if = "empty")]
    pub health_checks: Option<Toggle>,
    /// How often etcd is compacted; 0 switches it off; none means 10m.
    #[serde(rename = "etcdV3CompactionPeriod", skip_serializing_if = "empty")]
    pub etcdv3_compaction_period: Option<GoDuration>,
    /// Port of the metrics; 0 switches them off; none means 9094.
    #[serde(skip_serializing_if = "empty")]
    pub prometheus_metrics_port: Option<i64>,
    /// Which controllers run.
    pub controllers: ControllersConfig,
    /// Port of the profiler; none switches it off.
    #[serde(skip_serializing_if = "empty")]
    pub debug_profile_port: Option<i32>,
}

/// Which controllers run, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ControllersConfig {
    /// Removes data of nodes that are gone, copies labels, makes host endpoints.
    #[serde(skip_serializing_if = "empty")]
    pub node: Option<NodeControllerConfig>,
    /// Copies Kubernetes network policies.
    #[serde(skip_serializing_if = "empty")]
    pub policy: Option<PolicyControllerConfig>,
    /// Copies labels of pods.
    #[serde(skip_serializing_if = "empty")]
    pub workload_endpoint: Option<WorkloadEndpointControllerConfig>,
    /// Makes profiles of service accounts.
    #[serde(skip_serializing_if = "empty")]
    pub service_account: Option<ServiceAccountControllerConfig>,
    /// Makes profiles of namespaces.
    #[serde(skip_serializing_if = "empty")]
    pub namespace: Option<NamespaceControllerConfig>,
    /// Assigns addresses to services.
    #[serde(skip_serializing_if = "empty")]
    pub load_balancer: Option<LoadBalancerControllerConfig>,
    /// Migrates old data.
    #[serde(skip_serializing_if = "empty")]
    pub migration: Option<MigrationControllerConfig>,
}

/// Settings of the migration controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MigrationControllerConfig {
    /// Whether policies get their names without tier prefix; none means `Enabled`.
    #[serde(skip_serializing_if = "empty")]
    pub policy_name_migrator: Option<Toggle>,
}

/// Settings of the node controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeControllerConfig {
    /// How often everything is checked again; none means 5m.
    #[serde(skip_serializing_if = "empty")]
    pub reconciler_period: Option<GoDuration>,
    /// Whether labels of Kubernetes nodes are copied; none means `Enabled`.
    #[serde(skip_serializing_if = "empty")]
    pub sync_labels: Option<Toggle>,
    /// Whether host endpoints are made for nodes.
    #[serde(skip_serializing_if = "empty")]
    pub host_endpoint: Option<AutoHostEndpointConfig>,
    /// How long an address that seems leaked is kept; none means 15m.
    #[serde(skip_serializing_if = "empty")]
    pub leak_grace_period: Option<GoDuration>,
}

/// How host endpoints are made for nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AutoHostEndpointConfig {
    /// Whether they are made; none means `Disabled`.
    #[serde(skip_serializing_if = "empty")]
    pub auto_create: Option<Toggle>,
    /// Whether the one for all interfaces is made; none means `Enabled`.
    #[serde(skip_serializing_if = "empty")]
    pub create_default_host_endpoint: Option<Toggle>,
    /// Further ones to make for each node.
    #[serde(skip_serializing_if = "empty")]
    pub templates: Vec<HostEndpointTemplate>,
}

/// A host endpoint to make for each node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostEndpointTemplate {
    /// Part of the name.
    #[serde(skip_serializing_if = "empty")]
    pub generate_name: String,
    /// Which of the node's addresses are expected on it.
    #[serde(rename = "interfaceCIDRs", skip_serializing_if = "empty")]
    pub interface_cidrs: Vec<IpNetText>,
    /// A regular expression for the interface's name.
    #[serde(skip_serializing_if = "empty")]
    pub interface_pattern: String,
    /// Labels to give to it.
    #[serde(skip_serializing_if = "empty")]
    pub labels: LabelMap,
    /// Annotations to give to it.
    #[serde(skip_serializing_if = "empty")]
    pub annotations: BTreeMap<String, String>,
    /// Nodes for which it is made.
    #[serde(skip_serializing_if = "empty")]
    pub node_selector: String,
}

/// Settings of the policy controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyControllerConfig {
    /// How often everything is checked again; none means 5m.
    #[serde(skip_serializing_if = "empty")]
    pub reconciler_period: Option<GoDuration>,
}

/// Settings of the workload endpoint controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadEndpointControllerConfig {
    /// How often everything is checked again; none means 5m.
    #[serde(skip_serializing_if = "empty")]
    pub reconciler_period: Option<GoDuration>,
}

/// Settings of the service account controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceAccountControllerConfig {
    /// How often everything is checked again; none means 5m.
    #[serde(skip_serializing_if = "empty")]
    pub reconciler_period: Option<GoDuration>,
}

/// Settings of the namespace controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NamespaceControllerConfig {
    /// How often everything is checked again; none means 5m.
    #[serde(skip_serializing_if = "empty")]
    pub reconciler_period: Option<GoDuration>,
}

/// Settings of the load balancer controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoadBalancerControllerConfig {
    /// Which services get addresses; none means `AllServices`.
    #[serde(rename = "assignIPs", skip_serializing_if = "empty")]
    pub assign_ips: Option<AssignIps>,
}

string_enum! {
    /// Which services get addresses.
    AssignIps {
        /// All of type LoadBalancer.
        #[default]
        AllServices = "AllServices",
        /// Those that ask by annotation.
        RequestedServicesOnly = "RequestedServicesOnly",
    }
}

/// What the controllers run with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeControllersConfigurationStatus {
    /// The settings in force.
    #[serde(skip_serializing_if = "empty")]
    pub running_config: Option<KubeControllersConfigurationSpec>,
    /// Environment variables that took part.
    #[serde(skip_serializing_if = "empty")]
    pub environment_vars: BTreeMap<String, String>,
}

const LOG_LEVELS: &[&str] = &["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"];

impl Checked for KubeControllersConfiguration {
    fn apply_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.health_checks.get_or_insert(Toggle::Enabled);
        spec.prometheus_metrics_port.get_or_insert(9094);
        if let Some(node) = &mut spec.controllers.node {
            node.leak_grace_period.get_or_insert(GoDuration::from_seconds(15 * 60));
        }
        if let Some(load_balancer) = &mut spec.controllers.load_balancer {
            load_balancer.assign_ips.get_or_insert(AssignIps::AllServices);
        }
        if let Some(migration) = &mut spec.controllers.migration {
            migration.policy_name_migrator.get_or_insert(Toggle::Enabled);
        }
    }

    fn check(&self, out: &mut Findings) {
        let spec = &self.spec;
        let path = Path::root("spec");
        out.word(&path.field("logSeverityScreen"), &spec.log_severity_screen, LOG_LEVELS);
        out.range(&path.field("prometheusMetricsPort"), spec.prometheus_metrics_port, 0, 65535);
        out.range(&path.field("debugProfilePort"), spec.debug_profile_port.map(i64::from), 0, 65535);
        let node = spec.controllers.node.as_ref();
        let Some(host_endpoint) = node.and_then(|node| node.host_endpoint.as_ref()) else { return };
        let at = path.field("controllers");
        let at = at.field("node");
        let at = at.field("hostEndpoint");
        let at = at.field("templates");
        for (i, template) in host_endpoint.templates.iter().enumerate() {
            check_template(template, &at.index(i), out);
            if host_endpoint.templates[..i].iter().any(|t| t.generate_name == template.generate_name) {
                let at = at.index(i);
                out.wrong(&at.field("generateName"), format!("{:?}", template.generate_name), "each name once");
            }
        }
    }
}

fn check_template(template: &HostEndpointTemplate, path: &Path<'_>, out: &mut Findings) {
    let HostEndpointTemplate { generate_name, interface_cidrs, interface_pattern, labels, annotations, node_selector } =
        template;
    if generate_name.is_empty() {
        out.wrong(&path.field("generateName"), "", "a name");
    }
    out.name(&path.field("generateName"), generate_name);
    if interface_cidrs.is_empty() && interface_pattern.is_empty() {
        out.wrong(&path.field("interfaceCIDRs"), "", "interfaceCIDRs or interfacePattern");
    }
    out.nets(&path.field("interfaceCIDRs"), interface_cidrs);
    out.regex(&path.field("interfacePattern"), interface_pattern);
    check_metadata::labels(labels, &path.field("labels"), out);
    check_metadata::annotations(annotations, &path.field("annotations"), out);
    out.selector(&path.field("nodeSelector"), node_selector);
}
