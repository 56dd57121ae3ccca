//! The agent's inbox: a channel that also makes a descriptor readable, so that one `poll` waits for everything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Message;

/// The sending side.
#[derive(Clone)]
pub struct Post {
    messages: Sender<Message>,
    bell: Arc<EventFd>,
}

impl Post {
    /// Sends a message. If the agent has ended, the message is dropped, and whoever waits for an answer sees that.
    pub fn send(&self, message: Message) {
        let _ = self.messages.send(message);
        self.ring();
    }

    /// Wakes the agent without a message.
    pub fn ring(&self) {
        // The counter can only be full when the agent has long been told.
        let _ = self.bell.write(1);
    }
}

/// The receiving side.
pub struct Inbox {
    messages: Receiver<Message>,
    bell: Arc<EventFd>,
}

impl Inbox {
    /// An inbox and its post.
    pub fn new() -> io::Result<(Inbox, Post)> {
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (sender, messages) = channel();
        Ok((Inbox { messages, bell: bell.clone() }, Post { messages: sender, bell }))
    }

    /// Takes what is there. Call after the descriptor was readable.
    pub fn take(&self) -> Vec<Message> {
        let _ = self.bell.read();
        self.messages.try_iter().collect()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
