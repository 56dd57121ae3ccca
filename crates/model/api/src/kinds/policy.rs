//! What the four Calico policy kinds share.

use crate::enums::string_enum;

string_enum! {
    /// A direction to which a policy applies.
    PolicyType {
        /// Traffic towards the endpoint.
        #[default]
        Ingress = "Ingress",
        /// Traffic from the endpoint.
        Egress = "Egress",
    }
}

string_enum! {
    /// A hint to the policy engine; it never changes what a policy does.
    PolicyPerformanceHint {
        /// Prepare the policy on every node, whether or not it selects an endpoint there.
        #[default]
        AssumeNeededOnEveryNode = "AssumeNeededOnEveryNode",
    }
}

string_enum! {
    /// What a staged policy proposes.
    StagedAction {
        /// Create or replace the policy.
        #[default]
        Set = "Set",
        /// Delete the policy.
        Delete = "Delete",
        /// Learn what would match.
        Learn = "Learn",
        /// Do nothing.
        Ignore = "Ignore",
    }
}
