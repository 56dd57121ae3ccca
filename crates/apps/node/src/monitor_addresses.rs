//! The node's addresses while it runs (upstream's `monitor-addresses`): where they are looked for at the start, they are
//! looked for again after the host's addresses changed, and by a clock. The Node resource follows what is found; BGP,
//! routes and tunnels follow the Node resource.
//!
//! Invariant: an address goes only for another one that two looks in a row find and that no other node has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tortie_api::{Kind, Resource};
use tortie_facts::Key;
use tortie_net::Family;
use tortie_netlink::{Event, Groups, Monitor};
use tortie_store::{Reader, Store};
use tracing::{info, warn};

use crate::addresses::{self, Known};
use crate::autodetect::is_global;
use crate::environment::Environment;
use crate::startup::Identity;
use crate::{host, lock, register};

/// Addresses that change come in bursts, and some come back at once, as when a service of the network is started again:
/// the pause before a look, and that before the second one.
const SETTLE: Duration = Duration::from_secs(2);

/// The pause after a look that came to nothing, as the datastore may be out of reach from the old address; it doubles up
/// to the clock's own.
const AGAIN: Duration = Duration::from_secs(3);

struct Watcher {
    store: Arc<dyn Store>,
    environment: Environment,
    name: String,
    monitor: Monitor,
    /// What the last look found, if that is not what is stored.
    found: Option<Identity>,
    /// Why the last look came to nothing.
    trouble: String,
    /// The clock's pause for as long as there is trouble.
    again: Option<Duration>,
}

/// Starts to watch, in a thread of its own, if the environment lets addresses be looked for.
pub fn start(store: Arc<dyn Store>, environment: &Environment, name: &str) -> Result<()> {
    if !addresses::may_change(environment) {
        return Ok(());
    }
    let groups = Groups { addresses: true, ..Groups::default() };
    let mut watcher = Watcher {
        store,
        environment: environment.clone(),
        name: name.to_owned(),
        monitor: Monitor::open(groups)?,
        found: None,
        trouble: String::new(),
        again: None,
    };
    let run = move || {
        loop {
            watcher.wait();
            watcher.turn();
        }
    };
    std::thread::Builder::new().name("monitor-addresses".to_owned()).spawn(run).context("can't start a thread")?;
    Ok(())
}

impl Watcher {
    /// Until it is time to look.
    fn wait(&mut self) {
        let until = Instant::now() + self.again.unwrap_or(self.environment.address_interval);
        while self.found.is_none() && !self.hears(until.saturating_duration_since(Instant::now())) {
            if Instant::now() >= until {
                return;
            }
        }
        std::thread::sleep(SETTLE);
        // What happened meanwhile is seen by the look.
        let _ = self.monitor.drain();
    }

    /// Whether there are news of addresses; `false` also when the time ran out.
    fn hears(&mut self, pause: Duration) -> bool {
        match self.monitor.wait(pause) {
            Ok(true) => self.monitor.drain().is_ok_and(|events| events.iter().any(concerns)),
            Ok(false) => false,
            // What can't be heard is still seen by the clock.
            Err(_) => {
                std::thread::sleep(pause);
                false
            }
        }
    }

    fn turn(&mut self) {
        let before = self.found.take();
        let done = self.look().and_then(|found| match found {
            Some(found) if before.as_ref() == Some(&found) => self.change(&found),
            found => {
                self.found = found;
                Ok(())
            }
        });
        // After a first look that finds something, the second tells whether the trouble of before is over.
        let Err(error) = done else {
            if self.found.is_none() {
                (self.trouble, self.again) = (String::new(), None);
            }
            return;
        };
        let trouble = format!("{error:#}");
        if trouble != self.trouble {
            warn!("this node's address stays as it is: {trouble}");
        }
        let pause = self.again.map_or(AGAIN, |pause| pause * 2);
        (self.trouble, self.again) = (trouble, Some(pause.min(self.environment.address_interval)));
    }

    /// What is to be stored in place of what is.
    fn look(&self) -> Result<Option<Identity>> {
        let interfaces = host::interfaces().context("can't read this host's interfaces")?;
        let entry = Reader::get(&*self.store, &Key::resource(Kind::Node, "", &self.name))?;
        // A node that was deleted comes back with its next start alone.
        let Some(Resource::Node(node)) = entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r) else {
            return Ok(None);
        };
        let own = Known::of_node(node);
        let all = || Known::read(&*self.store, &self.name);
        let (ipv4, ipv6) = addresses::find_again(&self.environment, &interfaces, &own, all)?;
        let differs = (ipv4, ipv6) != (own.stored(Family::V4), own.stored(Family::V6));
        Ok(differs.then(|| Identity { name: self.name.clone(), ipv4, ipv6 }))
    }

    fn change(&self, found: &Identity) -> Result<()> {
        let Identity { name, ipv4, ipv6 } = found;
        if lock::is_locked(&*self.store)? {
            anyhow::bail!("the datastore is locked");
        }
        register::register(&*self.store, &self.environment, found)?;
        let text = |net: &Option<_>| net.as_ref().map(ToString::to_string).unwrap_or_default();
        info!(node = name, ipv4 = text(ipv4), ipv6 = text(ipv6), "this node's address changed");
        Ok(())
    }
}

/// Whether an event may be of an address of the node.
fn concerns(event: &Event) -> bool {
    match event {
        Event::AddressSet(address) | Event::AddressGone(address) => is_global(address.net.addr()),
        Event::Resync => true,
        Event::LinkSet(_)
        | Event::LinkGone(_)
        | Event::RouteSet(_)
        | Event::RouteGone(_)
        | Event::NeighbourSet(_)
        | Event::NeighbourGone(_) => false,
    }
}
