//! How long the parts of a call may take in the node. The plugin waits longer than all of them together: if it gave up
//! first, the runtime would not learn why, and the node would go on with what nobody wants.

use std::time::Duration;

use crate::conf::Conf;
use crate::wire::Operation;

/// For an earlier call for the same endpoint, unless that one waits longer for its policy.
pub const TURN: Duration = Duration::from_secs(70);
/// For addresses that other pods of the node get before.
pub const ADDRESSES: Duration = Duration::from_secs(70);
/// For devices that are about to be deleted; the kernel's own pace is tens of milliseconds.
pub const SETTLED: Duration = Duration::from_secs(5);
/// For a new device to run; the kernel's own pace is at most a second.
pub const RUNNING: Duration = Duration::from_secs(3);
/// For the kernel to have forgotten an endpoint.
pub const GONE: Duration = Duration::from_secs(20);
/// For everything else: reading, writing, and the answer's way.
const REST: Duration = Duration::from_secs(10);

/// For the kernel to hold policy and routes of a new endpoint: `policy_setup_timeout_seconds`, a minute without it, a day
/// at most.
pub fn policy(conf: &Conf) -> Duration {
    Duration::from_secs(match conf.policy_setup_timeout_seconds {
        0 => 60,
        seconds => seconds.min(24 * 60 * 60),
    })
}

/// For the answer to a call, seen from the plugin.
pub fn answer(operation: Operation, conf: &Conf) -> Duration {
    let every = TURN + ADDRESSES + GONE + REST;
    match operation {
        // One that fails takes back what it did, and waits for that.
        Operation::Add => every + SETTLED + RUNNING + policy(conf),
        Operation::Del
        | Operation::Check
        | Operation::Status
        | Operation::Gc
        | Operation::IpamAdd
        | Operation::IpamDel
        | Operation::BgpRoutes
        | Operation::Drops
        | Operation::NodeStatus
        | Operation::PodCidrs => every,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(seconds: u64) -> Conf {
        let text = format!(
            r#"{{"name":"n","cniVersion":"1.0.0","policy_setup_timeout_seconds":{seconds},"ipam":{{"type":"calico-ipam"}}}}"#
        );
        Conf::read(&text).expect("a good configuration")
    }

    #[test]
    fn the_time_for_policy_is_added_to_the_others_of_add_alone() {
        for (seconds, expected) in [(0, 60), (1, 1), (600, 600), (u64::MAX, 86_400)] {
            let conf = conf(seconds);
            assert_eq!(policy(&conf), Duration::from_secs(expected), "{seconds}");
            let add = answer(Operation::Add, &conf);
            assert!(add > TURN + SETTLED + ADDRESSES + RUNNING + policy(&conf) + GONE, "{seconds}");
            let del = answer(Operation::Del, &conf);
            assert!(
                del > TURN + ADDRESSES + GONE && del == answer(Operation::Del, &super::tests::conf(0)),
                "{seconds}"
            );
        }
    }
}
