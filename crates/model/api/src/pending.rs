//! Checks still to come.
use crate::check::{Checked, Findings};
use crate::kinds::*;
impl Checked for NetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for GlobalNetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for StagedNetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for StagedGlobalNetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for StagedKubernetesNetworkPolicy {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for Tier {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for Profile {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for NetworkSet {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for GlobalNetworkSet {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for HostEndpoint {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for IpPool {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for IpReservation {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for IpamConfiguration {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for IpamBlock {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for IpamHandle {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for BlockAffinity {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for BgpConfiguration {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for BgpPeer {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for BgpFilter {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for ClusterInformation {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for FelixConfiguration {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for KubeControllersConfiguration {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for CalicoNodeStatus {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for Node {
    fn check(&self, _: &mut Findings) {}
}
impl Checked for WorkloadEndpoint {
    fn check(&self, _: &mut Findings) {}
}
