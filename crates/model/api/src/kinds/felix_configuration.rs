//! FelixConfiguration: settings of the node agent for all nodes (`default`), one (`node.NAME`) or some (by selector).
//!
//! One row a setting: the field, its type, its name in JSON, the parameter's name in files and environment
//! variables (`FELIX_` and the name, in any case) and that parameter's default as text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::empty::empty;
use crate::kinds::bgp_configuration::Toggle;
use crate::kinds::dscp::Dscp;
use crate::kinds::felix_types::*;
use crate::resource::resource;
use crate::{GoDuration, Port};

resource! {
    /// Settings of the node agent.
    FelixConfiguration { spec: FelixConfigurationSpec }
}

/// A setting's names and default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FelixParameter {
    /// The field's name in a FelixConfiguration.
    pub json: &'static str,
    /// The parameter's name in files and, after `FELIX_`, in environment variables; empty if it has none.
    pub name: &'static str,
    /// The default as text; empty if it has none. Durations are in the parameter's unit: seconds, or milliseconds
    /// where the name ends in `Millis`.
    pub default: &'static str,
}

macro_rules! felix_settings {
    ($($field:ident: $type:ty = $json:literal / $name:literal ($default:literal);)*) => {
        /// The specification of a FelixConfiguration. A field that is not set leaves the setting to the next source.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct FelixConfigurationSpec {
            $(
                #[doc = concat!("Parameter ", $name, ", \"", $default, "\" if no source sets it.")]
                #[serde(rename = $json, skip_serializing_if = "empty")]
                pub $field: $type,
            )*
        }

        impl FelixConfigurationSpec {
            /// Every setting, in the order of the fields.
            pub const PARAMETERS: &'static [FelixParameter] =
                &[$(FelixParameter { json: $json, name: $name, default: $default }),*];
        }
    };
}

felix_settings! {
    node_selector: Option<String> = "nodeSelector" / "" ("");
    use_internal_dataplane_driver: Option<bool> = "useInternalDataplaneDriver" / "UseInternalDataplaneDriver" ("true");
    dataplane_driver: String = "dataplaneDriver" / "DataplaneDriver" ("calico-iptables-plugin");
    dataplane_watchdog_timeout: Option<GoDuration> = "dataplaneWatchdogTimeout" / "DataplaneWatchdogTimeout" ("90");
    ipv6_support: Option<bool> = "ipv6Support" / "Ipv6Support" ("true");
    route_refresh_interval: Option<GoDuration> = "routeRefreshInterval" / "RouteRefreshInterval" ("90");
    interface_refresh_interval: Option<GoDuration> = "interfaceRefreshInterval" / "InterfaceRefreshInterval" ("90");
    iptables_refresh_interval: Option<GoDuration> = "iptablesRefreshInterval" / "IptablesRefreshInterval" ("180");
    iptables_post_write_check_interval: Option<GoDuration> =
        "iptablesPostWriteCheckInterval" / "IptablesPostWriteCheckIntervalSecs" ("5");
    iptables_lock_probe_interval: Option<GoDuration> =
        "iptablesLockProbeInterval" / "IptablesLockProbeIntervalMillis" ("50");
    feature_detect_override: String = "featureDetectOverride" / "FeatureDetectOverride" ("");
    feature_gates: String = "featureGates" / "FeatureGates" ("");
    ipsets_refresh_interval: Option<GoDuration> = "ipsetsRefreshInterval" / "IpsetsRefreshInterval" ("90");
    max_ipset_size: Option<i64> = "maxIpsetSize" / "MaxIpsetSize" ("1048576");
    iptables_backend: Option<IptablesBackend> = "iptablesBackend" / "IptablesBackend" ("auto");
    xdp_refresh_interval: Option<GoDuration> = "xdpRefreshInterval" / "XDPRefreshInterval" ("90");
    netlink_timeout: Option<GoDuration> = "netlinkTimeout" / "NetlinkTimeoutSecs" ("10");
    metadata_addr: String = "metadataAddr" / "MetadataAddr" ("127.0.0.1");
    metadata_port: Option<i64> = "metadataPort" / "MetadataPort" ("8775");
    openstack_region: String = "openstackRegion" / "OpenstackRegion" ("");
    interface_prefix: String = "interfacePrefix" / "InterfacePrefix" ("cali");
    interface_exclude: String = "interfaceExclude" / "InterfaceExclude" ("kube-ipvs0");
    chain_insert_mode: String = "chainInsertMode" / "ChainInsertMode" ("insert");
    default_endpoint_to_host_action: String = "defaultEndpointToHostAction" / "DefaultEndpointToHostAction" ("DROP");
    iptables_filter_allow_action: String = "iptablesFilterAllowAction" / "IptablesFilterAllowAction" ("ACCEPT");
    iptables_mangle_allow_action: String = "iptablesMangleAllowAction" / "IptablesMangleAllowAction" ("ACCEPT");
    iptables_filter_deny_action: String = "iptablesFilterDenyAction" / "IptablesFilterDenyAction" ("DROP");
    log_prefix: String = "logPrefix" / "LogPrefix" ("calico-packet");
    log_action_rate_limit: Option<String> = "logActionRateLimit" / "LogActionRateLimit" ("");
    log_action_rate_limit_burst: Option<i64> = "logActionRateLimitBurst" / "LogActionRateLimitBurst" ("5");
    log_file_path: String = "logFilePath" / "LogFilePath" ("/var/log/calico/felix.log");
    log_severity_file: String = "logSeverityFile" / "LogSeverityFile" ("INFO");
    log_severity_screen: String = "logSeverityScreen" / "LogSeverityScreen" ("INFO");
    log_severity_sys: String = "logSeveritySys" / "LogSeveritySys" ("INFO");
    log_debug_filename_regex: String = "logDebugFilenameRegex" / "LogDebugFilenameRegex" ("");
    ipip_enabled: Option<bool> = "ipipEnabled" / "IpInIpEnabled" ("");
    ipip_mtu: Option<i64> = "ipipMTU" / "IpInIpMtu" ("0");
    vxlan_enabled: Option<bool> = "vxlanEnabled" / "VXLANEnabled" ("");
    vxlan_mtu: Option<i64> = "vxlanMTU" / "VXLANMTU" ("0");
    vxlan_mtu_v6: Option<i64> = "vxlanMTUV6" / "VXLANMTUV6" ("0");
    vxlan_port: Option<i64> = "vxlanPort" / "VXLANPort" ("4789");
    vxlan_vni: Option<i64> = "vxlanVNI" / "VXLANVNI" ("4096");
    allow_vxlan_packets_from_workloads: Option<bool> =
        "allowVXLANPacketsFromWorkloads" / "AllowVXLANPacketsFromWorkloads" ("false");
    allow_ipip_packets_from_workloads: Option<bool> =
        "allowIPIPPacketsFromWorkloads" / "AllowIPIPPacketsFromWorkloads" ("false");
    reporting_interval: Option<GoDuration> = "reportingInterval" / "ReportingIntervalSecs" ("30");
    reporting_ttl: Option<GoDuration> = "reportingTTL" / "ReportingTTLSecs" ("90");
    endpoint_reporting_enabled: Option<bool> = "endpointReportingEnabled" / "EndpointReportingEnabled" ("false");
    endpoint_reporting_delay: Option<GoDuration> = "endpointReportingDelay" / "EndpointReportingDelaySecs" ("1");
    endpoint_status_path_prefix: String = "endpointStatusPathPrefix" / "EndpointStatusPathPrefix" ("/var/run/calico");
    iptables_mark_mask: Option<i64> = "iptablesMarkMask" / "IptablesMarkMask" ("0xffff0000");
    disable_conntrack_invalid_check: Option<bool> =
        "disableConntrackInvalidCheck" / "DisableConntrackInvalidCheck" ("false");
    health_enabled: Option<bool> = "healthEnabled" / "HealthEnabled" ("false");
    health_host: Option<String> = "healthHost" / "HealthHost" ("localhost");
    health_port: Option<i64> = "healthPort" / "HealthPort" ("9099");
    health_timeout_overrides: Vec<HealthTimeoutOverride> = "healthTimeoutOverrides" / "HealthTimeoutOverrides" ("");
    prometheus_metrics_enabled: Option<bool> = "prometheusMetricsEnabled" / "PrometheusMetricsEnabled" ("false");
    prometheus_metrics_host: String = "prometheusMetricsHost" / "PrometheusMetricsHost" ("");
    prometheus_metrics_port: Option<i64> = "prometheusMetricsPort" / "PrometheusMetricsPort" ("9091");
    prometheus_go_metrics_enabled: Option<bool> = "prometheusGoMetricsEnabled" / "PrometheusGoMetricsEnabled" ("true");
    prometheus_process_metrics_enabled: Option<bool> =
        "prometheusProcessMetricsEnabled" / "PrometheusProcessMetricsEnabled" ("true");
    prometheus_wire_guard_metrics_enabled: Option<bool> =
        "prometheusWireGuardMetricsEnabled" / "PrometheusWireGuardMetricsEnabled" ("true");
    prometheus_metrics_ca_file: Option<String> = "prometheusMetricsCAFile" / "PrometheusMetricsCAFile" ("");
    prometheus_metrics_cert_file: Option<String> = "prometheusMetricsCertFile" / "PrometheusMetricsCertFile" ("");
    prometheus_metrics_key_file: Option<String> = "prometheusMetricsKeyFile" / "PrometheusMetricsKeyFile" ("");
    prometheus_metrics_client_auth: Option<PrometheusMetricsClientAuth> =
        "prometheusMetricsClientAuth" / "PrometheusMetricsClientAuth" ("NoClientCert");
    failsafe_inbound_host_ports: Option<Vec<ProtoPort>> =
        "failsafeInboundHostPorts" / "FailsafeInboundHostPorts"
            ("tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667");
    failsafe_outbound_host_ports: Option<Vec<ProtoPort>> =
        "failsafeOutboundHostPorts" / "FailsafeOutboundHostPorts"
            ("udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667");
    kube_node_port_ranges: Option<Vec<Port>> = "kubeNodePortRanges" / "KubeNodePortRanges" ("30000:32767");
    policy_sync_path_prefix: String = "policySyncPathPrefix" / "PolicySyncPathPrefix" ("");
    usage_reporting_enabled: Option<bool> = "usageReportingEnabled" / "UsageReportingEnabled" ("true");
    usage_reporting_initial_delay: Option<GoDuration> =
        "usageReportingInitialDelay" / "UsageReportingInitialDelaySecs" ("300");
    usage_reporting_interval: Option<GoDuration> = "usageReportingInterval" / "UsageReportingIntervalSecs" ("86400");
    nat_port_range: Option<Port> = "natPortRange" / "NATPortRange" ("");
    nat_outgoing_address: String = "natOutgoingAddress" / "NATOutgoingAddress" ("");
    nat_outgoing_exclusions: Option<NatOutgoingExclusions> =
        "natOutgoingExclusions" / "NATOutgoingExclusions" ("IPPoolsOnly");
    device_route_source_address: String = "deviceRouteSourceAddress" / "DeviceRouteSourceAddress" ("");
    device_route_source_address_ipv6: String = "deviceRouteSourceAddressIPv6" / "DeviceRouteSourceAddressIPv6" ("");
    device_route_protocol: Option<i64> = "deviceRouteProtocol" / "DeviceRouteProtocol" ("3");
    remove_external_routes: Option<bool> = "removeExternalRoutes" / "RemoveExternalRoutes" ("true");
    program_cluster_routes: Option<String> = "programClusterRoutes" / "ProgramClusterRoutes" ("EnabledIPIPOnly");
    ip_forwarding: String = "ipForwarding" / "IPForwarding" ("Enabled");
    external_nodes_list: Option<Vec<String>> = "externalNodesList" / "ExternalNodesCIDRList" ("");
    debug_memory_profile_path: String = "debugMemoryProfilePath" / "DebugMemoryProfilePath" ("");
    debug_disable_log_dropping: Option<bool> = "debugDisableLogDropping" / "DebugDisableLogDropping" ("false");
    debug_simulate_calc_graph_hang_after: Option<GoDuration> =
        "debugSimulateCalcGraphHangAfter" / "DebugSimulateCalcGraphHangAfter" ("0");
    debug_simulate_dataplane_hang_after: Option<GoDuration> =
        "debugSimulateDataplaneHangAfter" / "DebugSimulateDataplaneHangAfter" ("0");
    debug_simulate_dataplane_apply_delay: Option<GoDuration> =
        "debugSimulateDataplaneApplyDelay" / "DebugSimulateDataplaneApplyDelay" ("0");
    debug_host: Option<String> = "debugHost" / "DebugHost" ("localhost");
    debug_port: Option<i64> = "debugPort" / "DebugPort" ("");
    iptables_nat_outgoing_interface_filter: String =
        "iptablesNATOutgoingInterfaceFilter" / "IptablesNATOutgoingInterfaceFilter" ("");
    sidecar_acceleration_enabled: Option<bool> = "sidecarAccelerationEnabled" / "SidecarAccelerationEnabled" ("false");
    xdp_enabled: Option<bool> = "xdpEnabled" / "XDPEnabled" ("true");
    generic_xdp_enabled: Option<bool> = "genericXDPEnabled" / "GenericXDPEnabled" ("false");
    nftables_mode: Option<NftablesMode> = "nftablesMode" / "NFTablesMode" ("Auto");
    nftables_flow_table_offload: Option<NftablesFlowTableOffload> =
        "nftablesFlowTableOffload" / "NFTablesFlowTableOffload" ("Disabled");
    nftables_flow_table_data_iface_pattern: String =
        "nftablesFlowTableDataIfacePattern" / "NFTablesFlowTableDataIfacePattern" ("");
    nftables_refresh_interval: Option<GoDuration> = "nftablesRefreshInterval" / "NftablesRefreshInterval" ("180");
    nftables_filter_allow_action: String = "nftablesFilterAllowAction" / "NftablesFilterAllowAction" ("ACCEPT");
    nftables_mangle_allow_action: String = "nftablesMangleAllowAction" / "NftablesMangleAllowAction" ("ACCEPT");
    nftables_filter_deny_action: String = "nftablesFilterDenyAction" / "NftablesFilterDenyAction" ("DROP");
    nftables_mark_mask: Option<i64> = "nftablesMarkMask" / "NftablesMarkMask" ("0xffff0000");
    bpf_enabled: Option<bool> = "bpfEnabled" / "BPFEnabled" ("false");
    bpf_overlay_host_source_ip: Option<BpfOverlayHostSourceIp> =
        "bpfOverlayHostSourceIP" / "BPFOverlayHostSourceIP" ("TunnelAddress");
    bpf_disable_unprivileged: Option<bool> = "bpfDisableUnprivileged" / "BPFDisableUnprivileged" ("true");
    bpf_jit_hardening: Option<BpfJitHardening> = "bpfJITHardening" / "BPFJITHardening" ("Auto");
    bpf_log_level: BpfLogLevel = "bpfLogLevel" / "BPFLogLevel" ("off");
    bpf_conntrack_log_level: String = "bpfConntrackLogLevel" / "BPFConntrackLogLevel" ("off");
    bpf_conntrack_mode: Option<BpfConntrackMode> = "bpfConntrackMode" / "BPFConntrackCleanupMode" ("Auto");
    bpf_conntrack_timeouts: Option<BpfConntrackTimeouts> =
        "bpfConntrackTimeouts" / "BPFConntrackTimeouts"
            ("CreationGracePeriod=10s,TCPSynSent=20s,TCPEstablished=1h,TCPFinsSeen=Auto,TCPResetSeen=40s,UDPTimeout=60s,GenericTimeout=10m,ICMPTimeout=5s");
    bpf_ip_frag_timeout: Option<GoDuration> = "bpfIPFragTimeout" / "BPFIPFragTimeout" ("0");
    bpf_log_filters: Option<BTreeMap<String, String>> = "bpfLogFilters" / "BPFLogFilters" ("");
    bpf_ctlb_log_filter: String = "bpfCTLBLogFilter" / "BPFCTLBLogFilter" ("");
    bpf_data_iface_pattern: String =
        "bpfDataIfacePattern" / "BPFDataIfacePattern" ("^((en|wl|ww|sl|ib)[Popsx].*|(eth|wlan|wwan|bond).*)");
    bpf_l3_iface_pattern: String = "bpfL3IfacePattern" / "BPFL3IfacePattern" ("");
    bpf_connect_time_load_balancing_enabled: Option<bool> =
        "bpfConnectTimeLoadBalancingEnabled" / "BPFConnectTimeLoadBalancingEnabled" ("");
    bpf_connect_time_load_balancing: Option<BpfConnectTimeLb> =
        "bpfConnectTimeLoadBalancing" / "BPFConnectTimeLoadBalancing" ("TCP");
    bpf_host_networked_nat_without_ctlb: Option<Toggle> =
        "bpfHostNetworkedNATWithoutCTLB" / "BPFHostNetworkedNATWithoutCTLB" ("Enabled");
    bpf_external_service_mode: String = "bpfExternalServiceMode" / "BPFExternalServiceMode" ("tunnel");
    bpf_dsr_optout_cidrs: Option<Vec<String>> = "bpfDSROptoutCIDRs" / "BPFDSROptoutCIDRs" ("");
    bpf_ext_to_service_connmark: Option<i64> = "bpfExtToServiceConnmark" / "BPFExtToServiceConnmark" ("0");
    bpf_kube_proxy_iptables_cleanup_enabled: Option<bool> =
        "bpfKubeProxyIptablesCleanupEnabled" / "BPFKubeProxyIptablesCleanupEnabled" ("true");
    bpf_kube_proxy_min_sync_period: Option<GoDuration> =
        "bpfKubeProxyMinSyncPeriod" / "BPFKubeProxyMinSyncPeriod" ("1");
    bpf_kube_proxy_healthz_port: Option<i64> = "bpfKubeProxyHealthzPort" / "BPFKubeProxyHealthzPort" ("10256");
    bpf_ps_nat_ports: Option<Port> = "bpfPSNATPorts" / "BPFPSNATPorts" ("20000:29999");
    bpf_map_size_nat_frontend: Option<i64> = "bpfMapSizeNATFrontend" / "BPFMapSizeNATFrontend" ("65536");
    bpf_map_size_nat_backend: Option<i64> = "bpfMapSizeNATBackend" / "BPFMapSizeNATBackend" ("262144");
    bpf_map_size_nat_affinity: Option<i64> = "bpfMapSizeNATAffinity" / "BPFMapSizeNATAffinity" ("65536");
    bpf_map_size_route: Option<i64> = "bpfMapSizeRoute" / "BPFMapSizeRoute" ("262144");
    bpf_map_size_conntrack: Option<i64> = "bpfMapSizeConntrack" / "BPFMapSizeConntrack" ("512000");
    bpf_map_size_per_cpu_conntrack: Option<i64> = "bpfMapSizePerCpuConntrack" / "BPFMapSizePerCPUConntrack" ("0");
    bpf_map_size_conntrack_scaling: String =
        "bpfMapSizeConntrackScaling" / "BPFMapSizeConntrackScaling" ("DoubleIfFull");
    bpf_map_size_conntrack_cleanup_queue: Option<i64> =
        "bpfMapSizeConntrackCleanupQueue" / "BPFMapSizeConntrackCleanupQueue" ("100000");
    bpf_map_size_ip_sets: Option<i64> = "bpfMapSizeIPSets" / "BPFMapSizeIPSets" ("1048576");
    bpf_map_size_if_state: Option<i64> = "bpfMapSizeIfState" / "BPFMapSizeIfState" ("1000");
    bpf_host_conntrack_bypass: Option<bool> = "bpfHostConntrackBypass" / "BPFHostConntrackBypass" ("false");
    bpf_ip_fragment_reassembly_enabled: Option<bool> =
        "bpfIPFragmentReassemblyEnabled" / "BPFIPFragmentReassemblyEnabled" ("true");
    bpf_enforce_rpf: String = "bpfEnforceRPF" / "BPFEnforceRPF" ("Loose");
    bpf_policy_debug_enabled: Option<bool> = "bpfPolicyDebugEnabled" / "BPFPolicyDebugEnabled" ("true");
    bpf_force_track_packets_from_ifaces: Option<Vec<String>> =
        "bpfForceTrackPacketsFromIfaces" / "BPFForceTrackPacketsFromIfaces" ("docker+");
    bpf_disable_gro_for_ifaces: String = "bpfDisableGROForIfaces" / "BPFDisableGROForIfaces" ("");
    bpf_exclude_cidrs_from_nat: Option<Vec<String>> = "bpfExcludeCIDRsFromNAT" / "BPFExcludeCIDRsFromNAT" ("");
    bpf_export_buffer_size_mb: Option<i64> = "bpfExportBufferSizeMB" / "BPFExportBufferSizeMB" ("1");
    istio_ambient_mode: Option<Toggle> = "istioAmbientMode" / "IstioAmbientMode" ("Disabled");
    istio_dscp_mark: Option<Dscp> = "istioDSCPMark" / "IstioDSCPMark" ("23");
    cgroup_v2_path: String = "cgroupV2Path" / "CgroupV2Path" ("");
    flow_logs_policy_evaluation_mode: Option<FlowLogsPolicyEvaluationMode> =
        "flowLogsPolicyEvaluationMode" / "FlowLogsPolicyEvaluationMode" ("Continuous");
    bpf_redirect_to_peer: String = "bpfRedirectToPeer" / "BPFRedirectToPeer" ("Enabled");
    bpf_attach_type: Option<BpfAttachOption> = "bpfAttachType" / "BPFAttachType" ("Netkit");
    flow_logs_flush_interval: Option<GoDuration> = "flowLogsFlushInterval" / "FlowLogsFlushInterval" ("300");
    flow_logs_collector_debug_trace: Option<bool> =
        "flowLogsCollectorDebugTrace" / "FlowLogsCollectorDebugTrace" ("false");
    flow_logs_goldmane_server: Option<String> = "flowLogsGoldmaneServer" / "FlowLogsGoldmaneServer" ("");
    flow_logs_local_reporter: Option<String> = "flowLogsLocalReporter" / "FlowLogsLocalReporter" ("Disabled");
    bpf_profiling: String = "bpfProfiling" / "BPFProfiling" ("Disabled");
    route_source: String = "routeSource" / "RouteSource" ("CalicoIPAM");
    route_table_ranges: Option<Vec<RouteTableIdRange>> = "routeTableRanges" / "RouteTableRanges" ("");
    route_table_range: Option<RouteTableRange> = "routeTableRange" / "RouteTableRange" ("");
    route_sync_disabled: Option<bool> = "routeSyncDisabled" / "RouteSyncDisabled" ("false");
    ipv4_normal_route_priority: Option<i64> = "ipv4NormalRoutePriority" / "IPv4NormalRoutePriority" ("1024");
    ipv4_elevated_route_priority: Option<i64> = "ipv4ElevatedRoutePriority" / "IPv4ElevatedRoutePriority" ("512");
    ipv6_normal_route_priority: Option<i64> = "ipv6NormalRoutePriority" / "IPv6NormalRoutePriority" ("1024");
    ipv6_elevated_route_priority: Option<i64> = "ipv6ElevatedRoutePriority" / "IPv6ElevatedRoutePriority" ("512");
    live_migration_route_convergence_time: Option<GoDuration> =
        "liveMigrationRouteConvergenceTime" / "LiveMigrationRouteConvergenceTime" ("30");
    wireguard_enabled: Option<bool> = "wireguardEnabled" / "WireguardEnabled" ("false");
    wireguard_enabled_v6: Option<bool> = "wireguardEnabledV6" / "WireguardEnabledV6" ("false");
    wireguard_threading_enabled: Option<bool> = "wireguardThreadingEnabled" / "WireguardThreadingEnabled" ("false");
    wireguard_listening_port: Option<i64> = "wireguardListeningPort" / "WireguardListeningPort" ("51820");
    wireguard_listening_port_v6: Option<i64> = "wireguardListeningPortV6" / "WireguardListeningPortV6" ("51821");
    wireguard_routing_rule_priority: Option<i64> =
        "wireguardRoutingRulePriority" / "WireguardRoutingRulePriority" ("99");
    wireguard_interface_name: String = "wireguardInterfaceName" / "WireguardInterfaceName" ("wireguard.cali");
    wireguard_interface_name_v6: String = "wireguardInterfaceNameV6" / "WireguardInterfaceNameV6" ("wg-v6.cali");
    wireguard_mtu: Option<i64> = "wireguardMTU" / "WireguardMTU" ("0");
    wireguard_mtu_v6: Option<i64> = "wireguardMTUV6" / "WireguardMTUV6" ("0");
    wireguard_host_encryption_enabled: Option<bool> =
        "wireguardHostEncryptionEnabled" / "WireguardHostEncryptionEnabled" ("false");
    wireguard_keep_alive: Option<GoDuration> = "wireguardKeepAlive" / "WireguardPersistentKeepAlive" ("0");
    aws_src_dst_check: Option<AwsSrcDstCheckOption> = "awsSrcDstCheck" / "AWSSrcDstCheck" ("DoNothing");
    service_loop_prevention: String = "serviceLoopPrevention" / "ServiceLoopPrevention" ("Drop");
    workload_source_spoofing: String = "workloadSourceSpoofing" / "WorkloadSourceSpoofing" ("Disabled");
    mtu_iface_pattern: String =
        "mtuIfacePattern" / "MTUIfacePattern" ("^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)");
    floating_ips: Option<Toggle> = "floatingIPs" / "FloatingIPs" ("Disabled");
    local_subnet_l2_reachability: Option<LocalSubnetL2ReachabilityMode> =
        "localSubnetL2Reachability" / "LocalSubnetL2Reachability" ("Disabled");
    local_subnet_l2_reachability_refresh_interval: Option<GoDuration> =
        "localSubnetL2ReachabilityRefreshInterval" / "LocalSubnetL2ReachabilityRefreshInterval" ("120");
    windows_manage_firewall_rules: Option<Toggle> =
        "windowsManageFirewallRules" / "WindowsManageFirewallRules" ("Disabled");
    go_gc_threshold: Option<i64> = "goGCThreshold" / "GoGCThreshold" ("40");
    go_memory_limit_mb: Option<i64> = "goMemoryLimitMB" / "GoMemoryLimitMB" ("-1");
    go_max_procs: Option<i64> = "goMaxProcs" / "GoMaxProcs" ("-1");
    require_mtu_file: Option<bool> = "requireMTUFile" / "RequireMTUFile" ("false");
    bpf_maglev_max_endpoints_per_service: Option<i64> =
        "bpfMaglevMaxEndpointsPerService" / "BPFMaglevMaxEndpointsPerService" ("100");
    bpf_maglev_max_services: Option<i64> = "bpfMaglevMaxServices" / "BPFMaglevMaxServices" ("100");
}
