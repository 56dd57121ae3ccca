//! Stops the established flows that changed policy denies, and lets those go on again that it allows again.
//!
//! Rules accept what is established before they ask policy. So after each change of policy a thread beside the agent
//! lists the kernel's flows, has the agent judge those that concern this node under the rules that are in force, and
//! sets [`REVOKED_MARK`] on those that are denied now: rules end packets of such flows, in both directions. The mark
//! lives and ends with the kernel's entry, so there is nothing to expire, and no packet can begin the flow anew.
//! Invariant: a flow that can't be judged stays as it is. Of a TCP connection that was there before the kernel tracked any
//! nobody knows which side opened it: it stops when it is denied either way round.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use tortie_flow::{Connection, Standing, Surroundings};
use tortie_flowtap::{Connections, ConntrackError, Tracked};
use tortie_netlink::{Handle, RouteFilter};
use tortie_ruleset::REVOKED_MARK;
use tracing::{info, warn};

use crate::agent::{Message, Post};

/// Flows that the agent judges in one turn: a few milliseconds of its time.
const AT_ONCE: usize = 128;
/// How long the agent is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// When flows are looked at once more: a packet on its way while rules change is let through by the old ones, and the
/// kernel lists its flow only after that.
const AGAIN: Duration = Duration::from_millis(200);
/// After a pass the thread rests for so many times as long as it took, so that policy that keeps changing costs a small
/// part of one processor.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Flows to be judged.
pub struct Question {
    /// The flows.
    pub flows: Vec<Connection>,
    /// The node around them.
    pub around: Arc<Surroundings>,
    /// Where the answer goes: one standing for each flow, or nothing if the kernel does not hold the rules that are
    /// wanted.
    pub answer: Sender<Option<Vec<Standing>>>,
}

/// The handle by which the agent tells that rules changed.
#[derive(Debug)]
pub struct Revoker {
    bell: SyncSender<()>,
}

impl Revoker {
    /// The kernel holds other rules than before. Never waits.
    pub fn changed(&self) {
        // A full channel has told already.
        let _ = self.bell.try_send(());
    }
}

/// Starts the thread; `None`: this kernel tells of no connections.
pub fn start(post: Post) -> std::io::Result<Option<Revoker>> {
    let connections = match Connections::open() {
        Ok(connections) => connections,
        Err(error @ ConntrackError::Unsupported(_)) => {
            warn!(%error, "established flows go on whatever policy says");
            return Ok(None);
        }
        Err(error @ (ConntrackError::Silent | ConntrackError::Unavailable(_))) => {
            return Err(std::io::Error::other(error));
        }
    };
    let (bell, changes) = sync_channel(1);
    let mut work = Work { connections, post };
    std::thread::Builder::new().name("revoke".to_owned()).spawn(move || work.run(&changes))?;
    Ok(Some(Revoker { bell }))
}

struct Work {
    connections: Connections,
    post: Post,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    #[error("the node's addresses or routes can't be read: {0}")]
    Surroundings(#[from] tortie_netlink::Error),
    #[error("the agent does not answer")]
    Agent,
    /// Another change is told when the kernel holds the rules.
    #[error("the kernel does not hold the rules")]
    NotInForce,
}

impl Work {
    fn run(&mut self, changes: &Receiver<()>) {
        let mut again = None;
        loop {
            let rung = match again {
                None => changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(after) => changes.recv_timeout(after),
            };
            let new = match rung {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let started = Instant::now();
            let result = self.pass();
            again = match &result {
                Ok(()) => new.then_some(AGAIN),
                Err(Fault::NotInForce) => None,
                Err(fault @ (Fault::Conntrack(_) | Fault::Surroundings(_) | Fault::Agent)) => {
                    warn!(%fault, "established flows can't be judged; trying again");
                    Some(LONGEST_REST)
                }
            };
            std::thread::sleep((started.elapsed() * REST).min(LONGEST_REST));
        }
    }

    /// Looks at every flow once.
    fn pass(&mut self) -> Result<(), Fault> {
        let around = Arc::new(surroundings()?);
        let mut flows = Vec::new();
        self.connections.list(|tracked| {
            if !tracked.expected {
                flows.push(tracked);
            }
        })?;
        let (mut stopped, mut resumed) = (0u64, 0u64);
        for some in flows.chunks(AT_ONCE) {
            let standings = self.judge(some, &around)?;
            for (tracked, standing) in some.iter().zip(standings) {
                let marked = tracked.mark & REVOKED_MARK != 0;
                let wanted = match standing {
                    Standing::Denied => true,
                    Standing::Allowed => false,
                    Standing::Foreign => marked,
                };
                if wanted != marked && self.connections.mark(tracked, REVOKED_MARK, wanted)? {
                    *(if wanted { &mut stopped } else { &mut resumed }) += 1;
                }
            }
        }
        if stopped + resumed > 0 {
            info!(stopped, resumed, "established flows follow changed policy");
        }
        Ok(())
    }

    fn judge(&self, flows: &[Tracked], around: &Arc<Surroundings>) -> Result<Vec<Standing>, Fault> {
        let (answer, answered) = channel();
        let turned = flows.iter().filter(|tracked| tracked.picked_up).map(|t| t.connection.from_the_other_side());
        let asked = flows.iter().map(|tracked| tracked.connection).chain(turned).collect();
        self.post.send(Message::Judge(Question { flows: asked, around: around.clone(), answer }));
        let mut standings = answered.recv_timeout(PATIENCE).map_err(|_| Fault::Agent)?.ok_or(Fault::NotInForce)?;
        let turned = standings.split_off(flows.len().min(standings.len()));
        let unsure = flows.iter().zip(&mut standings).filter(|(tracked, _)| tracked.picked_up);
        unsure.zip(turned).for_each(|((_, standing), turned)| *standing = either_way(*standing, turned));
        Ok(standings)
    }
}

/// What becomes of a flow that began on the one side or the other.
fn either_way(one: Standing, other: Standing) -> Standing {
    match (one, other) {
        (Standing::Denied, Standing::Denied) => Standing::Denied,
        (Standing::Foreign, Standing::Foreign) => Standing::Foreign,
        (Standing::Allowed | Standing::Denied | Standing::Foreign, _) => Standing::Allowed,
    }
}

fn surroundings() -> Result<Surroundings, tortie_netlink::Error> {
    let mut kernel = Handle::open()?;
    let links = kernel.links()?;
    let own = kernel.addresses()?.into_iter().map(|address| address.net.addr()).collect();
    let mut around = Surroundings { own, ..Surroundings::default() };
    for route in kernel.routes(&RouteFilter::MAIN)? {
        let Some(hop) = route.hops.first() else { continue };
        if let Some(link) = links.iter().find(|link| link.index == hop.interface) {
            around.routes.insert(route.net, Arc::from(link.name.as_str()));
        }
    }
    Ok(around)
}
