//! Who waits for the kernel to be so.

use std::sync::mpsc::Sender;
use std::time::Instant;

use tortie_desired::{EndpointId, Tables};
use tortie_net::{IpNet, host_net};

use super::Until;

/// One who waits, until a time.
struct Wait {
    endpoint: EndpointId,
    until: Until,
    deadline: Instant,
    reply: Sender<()>,
}

/// Those who wait.
#[derive(Default)]
pub(super) struct Waits(Vec<Wait>);

impl Waits {
    pub(super) fn add(&mut self, endpoint: EndpointId, until: Until, deadline: Instant, reply: Sender<()>) {
        self.0.push(Wait { endpoint, until, deadline, reply });
    }

    /// Drops those who have run out of patience and said so themselves: what they wish may never come true.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|wait| wait.deadline > now);
    }

    /// Answers those whose wish is true of what the kernel holds. `programmed` says whether it holds a prefix's route.
    pub(super) fn answer(&mut self, held: &Tables, programmed: impl Fn(&IpNet) -> bool) {
        self.0.retain(|Wait { endpoint, until, deadline: _, reply }| {
            if !is_so(endpoint, until, held, &programmed) {
                return true;
            }
            // Who no longer waits has said so itself.
            let _ = reply.send(());
            false
        });
    }
}

fn is_so(endpoint: &EndpointId, until: &Until, held: &Tables, programmed: &impl Fn(&IpNet) -> bool) -> bool {
    let found = held.endpoints.get(endpoint);
    match until {
        Until::Gone => found.is_none(),
        Until::Programmed { interface, addresses } => found.is_some_and(|found| {
            found.interface == *interface
                && addresses.iter().all(|addr| found.addresses.contains(addr) && programmed(&host_net(*addr)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use tortie_desired::Endpoint;

    #[test]
    fn an_answer_comes_when_policy_and_routes_are_there_and_not_before() {
        let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from("a") };
        let addr = "10.0.0.1".parse().expect("a literal");
        let (reply, answer) = channel();
        let mut waits = Waits::default();
        let later = Instant::now() + std::time::Duration::from_secs(60);
        let until = Until::Programmed { interface: Arc::from("cali1"), addresses: vec![addr] };
        waits.add(id.clone(), until, later, reply);
        let mut held = Tables::default();
        waits.answer(&held, |_| true);
        assert!(answer.try_recv().is_err(), "no endpoint yet");
        let endpoint = Endpoint {
            interface: Arc::from("cali1"),
            addresses: vec![addr],
            mac: None,
            tiers: vec![],
            profiles: vec![],
            ..Endpoint::default()
        };
        held.endpoints.insert(id.clone(), Arc::new(endpoint));
        waits.answer(&held, |_| false);
        assert!(answer.try_recv().is_err(), "no route yet");
        waits.answer(&held, |net| *net == host_net(addr));
        assert!(answer.try_recv().is_ok());
        let (reply, answer) = channel();
        waits.add(id.clone(), Until::Gone, later, reply);
        waits.answer(&held, |_| true);
        assert!(answer.try_recv().is_err(), "still there");
        held.endpoints.remove(&id);
        waits.answer(&held, |_| true);
        assert!(answer.try_recv().is_ok());
    }

    #[test]
    fn who_waits_for_what_never_comes_is_forgotten_in_time() {
        let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from("a") };
        let (reply, answer) = channel();
        let mut waits = Waits::default();
        let now = Instant::now();
        let soon = now + std::time::Duration::from_secs(1);
        waits.add(id, Until::Programmed { interface: Arc::from("cali1"), addresses: vec![] }, soon, reply);
        waits.expire(now);
        assert_eq!(waits.0.len(), 1);
        waits.expire(soon);
        assert_eq!(waits.0.len(), 0);
        assert!(answer.recv().is_err(), "nobody holds the other end any more");
    }
}
