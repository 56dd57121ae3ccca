//! The handle through which everything is asked: one socket in one network namespace.

use netlink_packet_route::AddressFamily;
use tortie_net::Family;

use crate::socket::Socket;
use crate::wire::Request;
use crate::{Error, Netns, Result};

/// A connection to one network namespace's rtnetlink. Every call blocks until the kernel answered, at most 30 s.
pub struct Handle {
    pub(crate) socket: Socket,
}

impl Handle {
    /// A handle in the calling thread's network namespace.
    pub fn open() -> Result<Handle> {
        Ok(Handle { socket: Socket::open(0)? })
    }

    /// A handle in another network namespace; the calling thread stays where it is.
    pub fn open_in(netns: &Netns) -> Result<Handle> {
        netns.run(Handle::open)?
    }

    /// Sends one request; `doing` names it in the error.
    pub(crate) fn one(&mut self, request: Request, doing: impl Fn() -> String) -> Result<()> {
        self.many(&[request], |_| doing())?.pop().expect("one answer for one request")
    }

    /// Sends requests in few system calls; one result for each, in order.
    pub(crate) fn many(&mut self, requests: &[Request], doing: impl Fn(usize) -> String) -> Result<Vec<Result<()>>> {
        let answers = self.socket.transact(requests)?;
        let named = answers.into_iter().enumerate();
        Ok(named.map(|(at, a)| a.map_err(|r| Error::from_errno(r.errno, doing(at), r.text))).collect())
    }

    /// Dumps a kind and keeps what `parse` yields.
    pub(crate) fn list<T>(
        &mut self,
        request: &Request,
        parse: impl Fn(&[u8]) -> Option<T>,
        doing: &str,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let end = self.socket.dump(request, |message| match message {
            None => all.clear(),
            Some(body) => all.extend(parse(body)),
        })?;
        match end {
            Ok(()) => Ok(all),
            Err(refusal) => Err(Error::from_errno(refusal.errno, doing, refusal.text)),
        }
    }
}

/// The wire's number of a family.
pub(crate) fn wire_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
