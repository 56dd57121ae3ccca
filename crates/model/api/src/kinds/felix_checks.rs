//! Defaults and checks of FelixConfiguration.

use tortie_net::Family;

use crate::check::{Checked, Findings};
use crate::kinds::bgp_configuration::Toggle;
use crate::kinds::felix_configuration::{FelixConfiguration, FelixConfigurationSpec};
use crate::kinds::felix_types::*;
use crate::path::Path;
use crate::text;

const LOG_LEVELS: &[&str] = &["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
const ON_OFF: &[&str] = &["Enabled", "Disabled"];
const ALLOW_ACTIONS: &[&str] = &["Accept", "Return"];
const DENY_ACTIONS: &[&str] = &["Drop", "Reject"];
const MAX_PRIORITY: i64 = 2_147_483_646;
const MAX_U32: i64 = 4_294_967_295;

impl Checked for FelixConfiguration {
    fn apply_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.floating_ips.get_or_insert(Toggle::Disabled);
        spec.nftables_mode.get_or_insert(NftablesMode::Auto);
        spec.nftables_flow_table_offload.get_or_insert(NftablesFlowTableOffload::Disabled);
        match spec.bpf_connect_time_load_balancing_enabled {
            // The old setting, where it is given, decides both of its successors.
            Some(enabled) => {
                let balanced = if enabled { BpfConnectTimeLb::Enabled } else { BpfConnectTimeLb::Disabled };
                spec.bpf_connect_time_load_balancing = Some(balanced);
                spec.bpf_host_networked_nat_without_ctlb = Some(Toggle::Disabled);
            }
            None => {
                spec.bpf_connect_time_load_balancing.get_or_insert(BpfConnectTimeLb::Tcp);
                spec.bpf_host_networked_nat_without_ctlb.get_or_insert(Toggle::Enabled);
            }
        }
    }

    fn check(&self, out: &mut Findings) {
        let spec = &self.spec;
        let path = Path::root("spec");
        if let Some(selector) = &spec.node_selector {
            let at = path.field("nodeSelector");
            out.selector(&at, selector);
            if self.metadata.name == "default" || self.metadata.name.starts_with("node.") {
                out.wrong(&at, format!("{selector:?}"), "none in the configurations default and node.NAME");
            }
        }
        values(spec, &path, out);
        intervals(spec, &path, out);
    }
}

/// What is wrong in a variable's text as well as in a resource.
pub(crate) fn values(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    words(spec, path, out);
    numbers(spec, path, out);
    texts(spec, path, out);
    addresses(spec, path, out);
    lists(spec, path, out);
}

/// Of the durations those that upstream's resources take without a sign.
fn intervals(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let table = [
        ("routeRefreshInterval", spec.route_refresh_interval),
        ("interfaceRefreshInterval", spec.interface_refresh_interval),
        ("iptablesRefreshInterval", spec.iptables_refresh_interval),
        ("iptablesPostWriteCheckInterval", spec.iptables_post_write_check_interval),
        ("iptablesLockProbeInterval", spec.iptables_lock_probe_interval),
        ("ipsetsRefreshInterval", spec.ipsets_refresh_interval),
        ("xdpRefreshInterval", spec.xdp_refresh_interval),
        ("netlinkTimeout", spec.netlink_timeout),
        ("reportingInterval", spec.reporting_interval),
        ("reportingTTL", spec.reporting_ttl),
        ("endpointReportingDelay", spec.endpoint_reporting_delay),
        ("usageReportingInitialDelay", spec.usage_reporting_initial_delay),
        ("usageReportingInterval", spec.usage_reporting_interval),
        ("debugSimulateCalcGraphHangAfter", spec.debug_simulate_calc_graph_hang_after),
        ("debugSimulateDataplaneHangAfter", spec.debug_simulate_dataplane_hang_after),
        ("debugSimulateDataplaneApplyDelay", spec.debug_simulate_dataplane_apply_delay),
        ("bpfIPFragTimeout", spec.bpf_ip_frag_timeout),
        ("bpfKubeProxyMinSyncPeriod", spec.bpf_kube_proxy_min_sync_period),
        ("flowLogsFlushInterval", spec.flow_logs_flush_interval),
        ("liveMigrationRouteConvergenceTime", spec.live_migration_route_convergence_time),
        ("wireguardKeepAlive", spec.wireguard_keep_alive),
    ];
    for (field, interval) in table {
        if let Some(interval) = interval.filter(|interval| interval.0 < 0) {
            out.wrong(&path.field(field), interval, "a duration that is not negative");
        }
    }
}

fn words(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    let routes = optional(&spec.program_cluster_routes);
    let reporter = optional(&spec.flow_logs_local_reporter);
    let table: [(&str, &str, &[&str]); 24] = [
        ("chainInsertMode", &spec.chain_insert_mode, &["Insert", "Append"]),
        ("defaultEndpointToHostAction", &spec.default_endpoint_to_host_action, &["Drop", "Accept", "Return"]),
        ("iptablesFilterAllowAction", &spec.iptables_filter_allow_action, ALLOW_ACTIONS),
        ("iptablesMangleAllowAction", &spec.iptables_mangle_allow_action, ALLOW_ACTIONS),
        ("iptablesFilterDenyAction", &spec.iptables_filter_deny_action, DENY_ACTIONS),
        ("nftablesFilterAllowAction", &spec.nftables_filter_allow_action, ALLOW_ACTIONS),
        ("nftablesMangleAllowAction", &spec.nftables_mangle_allow_action, ALLOW_ACTIONS),
        ("nftablesFilterDenyAction", &spec.nftables_filter_deny_action, DENY_ACTIONS),
        ("logSeverityFile", &spec.log_severity_file, LOG_LEVELS),
        ("logSeverityScreen", &spec.log_severity_screen, LOG_LEVELS),
        ("logSeveritySys", &spec.log_severity_sys, LOG_LEVELS),
        ("programClusterRoutes", &routes, &["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"]),
        ("ipForwarding", &spec.ip_forwarding, ON_OFF),
        ("bpfLogLevel", &spec.bpf_log_level.0, &["Off", "Info", "Debug"]),
        ("bpfConntrackLogLevel", &spec.bpf_conntrack_log_level, &["Off", "Debug"]),
        ("bpfExternalServiceMode", &spec.bpf_external_service_mode, &["Tunnel", "DSR"]),
        ("bpfMapSizeConntrackScaling", &spec.bpf_map_size_conntrack_scaling, &["Disabled", "DoubleIfFull"]),
        ("bpfEnforceRPF", &spec.bpf_enforce_rpf, &["Disabled", "Strict", "Loose"]),
        ("bpfRedirectToPeer", &spec.bpf_redirect_to_peer, ON_OFF),
        ("flowLogsLocalReporter", &reporter, ON_OFF),
        ("bpfProfiling", &spec.bpf_profiling, ON_OFF),
        ("routeSource", &spec.route_source, &["WorkloadIPs", "CalicoIPAM"]),
        ("serviceLoopPrevention", &spec.service_loop_prevention, &["Drop", "Reject", "Disabled"]),
        ("workloadSourceSpoofing", &spec.workload_source_spoofing, &["Disabled", "Any"]),
    ];
    for (field, value, choices) in table {
        out.word(&path.field(field), value, choices);
    }
}

fn numbers(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let table = [
        ("logActionRateLimitBurst", spec.log_action_rate_limit_burst, 0, 9999),
        ("iptablesMarkMask", spec.iptables_mark_mask, 0, MAX_U32),
        ("nftablesMarkMask", spec.nftables_mark_mask, 0, MAX_U32),
        ("debugPort", spec.debug_port, 0, 65535),
        ("bpfExtToServiceConnmark", spec.bpf_ext_to_service_connmark, 0, MAX_U32),
        ("bpfKubeProxyHealthzPort", spec.bpf_kube_proxy_healthz_port, 0, 65535),
        ("bpfMapSizeConntrackCleanupQueue", spec.bpf_map_size_conntrack_cleanup_queue, 1, i64::MAX),
        ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority, 1, MAX_PRIORITY),
        ("ipv4ElevatedRoutePriority", spec.ipv4_elevated_route_priority, 1, MAX_PRIORITY),
        ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority, 1, MAX_PRIORITY),
        ("ipv6ElevatedRoutePriority", spec.ipv6_elevated_route_priority, 1, MAX_PRIORITY),
        ("wireguardListeningPort", spec.wireguard_listening_port, 1, 65535),
        ("wireguardListeningPortV6", spec.wireguard_listening_port_v6, 1, 65535),
        ("wireguardRoutingRulePriority", spec.wireguard_routing_rule_priority, 1, 32765),
        ("goGCThreshold", spec.go_gc_threshold, -1, i64::MAX),
        ("goMemoryLimitMB", spec.go_memory_limit_mb, -1, i64::MAX),
        ("goMaxProcs", spec.go_max_procs, -1, i64::MAX),
        ("bpfMaglevMaxEndpointsPerService", spec.bpf_maglev_max_endpoints_per_service, 1, 3000),
        ("bpfMaglevMaxServices", spec.bpf_maglev_max_services, 1, 3000),
    ];
    for (field, value, low, high) in table {
        out.range(&path.field(field), value, low, high);
    }
}

fn texts(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    let patterns = [
        ("logDebugFilenameRegex", &spec.log_debug_filename_regex),
        ("nftablesFlowTableDataIfacePattern", &spec.nftables_flow_table_data_iface_pattern),
        ("bpfDataIfacePattern", &spec.bpf_data_iface_pattern),
        ("bpfL3IfacePattern", &spec.bpf_l3_iface_pattern),
        ("bpfDisableGROForIfaces", &spec.bpf_disable_gro_for_ifaces),
        ("mtuIfacePattern", &spec.mtu_iface_pattern),
    ];
    for (field, pattern) in patterns {
        out.regex(&path.field(field), pattern);
    }
    let forms = [
        (
            "featureDetectOverride",
            Some(&spec.feature_detect_override),
            r"^([a-zA-Z0-9_-]+=(true|false|),)*([a-zA-Z0-9_-]+=(true|false|))?$",
            "NAME=true or NAME=false, joined by commas",
        ),
        (
            "featureGates",
            Some(&spec.feature_gates),
            r"^([a-zA-Z0-9_-]+=([^=]+),)*([a-zA-Z0-9_-]+=([^=]+))?$",
            "NAME=VALUE, joined by commas",
        ),
        ("logPrefix", Some(&spec.log_prefix), r"^[a-zA-Z0-9%: /_-]*$", "letters, digits, blanks and any of %:/_-"),
        (
            "logActionRateLimit",
            spec.log_action_rate_limit.as_ref(),
            r"^[1-9]\d{0,3}/(second|minute|hour|day)$",
            "N/second, N/minute, N/hour or N/day, N from 1 to 9999",
        ),
        (
            "prometheusMetricsHost",
            Some(&spec.prometheus_metrics_host).filter(|t| !t.is_empty()),
            r"^[a-zA-Z0-9:._+-]{1,64}$",
            "a host name or address of at most 64 bytes",
        ),
        (
            "iptablesNATOutgoingInterfaceFilter",
            Some(&spec.iptables_nat_outgoing_interface_filter).filter(|t| !t.is_empty()),
            r"^[a-zA-Z0-9:._+-]{1,15}$",
            "an interface name, which may end in '+'",
        ),
    ];
    for (field, value, form, expected) in forms {
        let form = regex::Regex::new(form).expect("a good pattern");
        if let Some(value) = value.filter(|value| !form.is_match(value)) {
            out.wrong(&path.field(field), format!("{value:?}"), expected);
        }
    }
    out.interface(&path.field("wireguardInterfaceName"), &spec.wireguard_interface_name, "");
    out.interface(&path.field("wireguardInterfaceNameV6"), &spec.wireguard_interface_name_v6, "");
    let region = &spec.openstack_region;
    if !(region.is_empty() || text::is_dns_label(region) && region.len() <= 46) {
        out.wrong(&path.field("openstackRegion"), format!("{region:?}"), "a DNS-1123 label of at most 46 bytes");
    }
}

fn addresses(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    out.ip(&path.field("natOutgoingAddress"), &spec.nat_outgoing_address, Some(Family::V4));
    out.ip(&path.field("deviceRouteSourceAddress"), &spec.device_route_source_address, Some(Family::V4));
    out.ip(&path.field("deviceRouteSourceAddressIPv6"), &spec.device_route_source_address_ipv6, Some(Family::V6));
    let lists = [
        ("externalNodesList", &spec.external_nodes_list),
        ("bpfDSROptoutCIDRs", &spec.bpf_dsr_optout_cidrs),
        ("bpfExcludeCIDRsFromNAT", &spec.bpf_exclude_cidrs_from_nat),
    ];
    for (field, list) in lists {
        for (i, net) in list.iter().flatten().enumerate() {
            let net = crate::IpNetText(net.clone());
            out.net(&path.field(field).index(i), &net);
            if field == "externalNodesList" && net.family() == Some(Family::V6) {
                out.wrong(&path.field(field).index(i), net, "an IPv4 address or prefix");
            }
        }
    }
}

fn lists(spec: &FelixConfigurationSpec, path: &Path<'_>, out: &mut Findings) {
    if let Some(ports) = &spec.kube_node_port_ranges {
        let at = path.field("kubeNodePortRanges");
        out.at_most(&at, ports, 7);
        for (i, port) in ports.iter().enumerate() {
            out.port_range(&at.index(i), Some(port));
        }
    }
    out.port_range(&path.field("natPortRange"), spec.nat_port_range.as_ref());
    out.port_range(&path.field("bpfPSNATPorts"), spec.bpf_ps_nat_ports.as_ref());
    for (field, ports) in [
        ("failsafeInboundHostPorts", &spec.failsafe_inbound_host_ports),
        ("failsafeOutboundHostPorts", &spec.failsafe_outbound_host_ports),
    ] {
        for (i, ProtoPort { protocol, port: _, net }) in ports.iter().flatten().enumerate() {
            let at = path.field(field);
            let at = at.index(i);
            out.word(&at.field("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
            if !net.is_empty() {
                out.net(&at.field("net"), net);
            }
        }
    }
    if spec.route_table_range.is_some() && spec.route_table_ranges.is_some() {
        out.wrong(&path.field("routeTableRange"), "with routeTableRanges", "routeTableRanges alone");
    }
    if let Some(RouteTableRange { min, max }) =
        spec.route_table_range.as_ref().filter(|r| !(1 <= r.min && r.min <= r.max && r.max <= 250))
    {
        out.wrong(&path.field("routeTableRange"), format!("{min} to {max}"), "a range within 1 to 250");
    }
    let mut tables = 0;
    for (i, RouteTableIdRange { min, max }) in spec.route_table_ranges.iter().flatten().enumerate() {
        if !(1 <= *min && min <= max && *max <= MAX_U32) {
            let at = path.field("routeTableRanges");
            out.wrong(&at.index(i), format!("{min} to {max}"), format!("a range within 1 to {MAX_U32}"));
        } else {
            tables += max - min + 1;
        }
    }
    if tables > 0xffff {
        out.wrong(&path.field("routeTableRanges"), format!("{tables} tables"), "at most 65535 tables");
    }
    for (i, HealthTimeoutOverride { name, timeout }) in spec.health_timeout_overrides.iter().enumerate() {
        let at = path.field("healthTimeoutOverrides");
        let at = at.index(i);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_ -".contains(c)) {
            out.wrong(&at.field("name"), format!("{name:?}"), "letters, digits, '_', '-' and blanks");
        }
        if timeout.0 < 0 {
            out.wrong(&at.field("timeout"), timeout, "a duration that is not negative");
        }
    }
}
