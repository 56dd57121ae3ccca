//! Deleting devices of pods that are gone, many at a time.
//!
//! The kernel waits about 18 ms per call when a veth goes, however many go in it, so DEL answers once the pod is cut
//! off and its address is free, and the devices follow in batches. They are known by index: the next pod may have the
//! same name, and so the same device name, before the old device is gone.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tortie_netlink::Handle;
use tracing::warn;

/// How long devices are gathered after the first one.
const GATHER: Duration = Duration::from_millis(100);

/// Most devices in one batch.
const MOST: usize = 256;

/// Takes devices to delete. When it is dropped, what was taken is deleted first.
pub struct Reaper {
    queue: Option<Sender<u32>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the reaper's thread.
    pub fn start() -> std::io::Result<Reaper> {
        let (queue, devices) = channel();
        let thread = std::thread::Builder::new().name("reaper".to_owned()).spawn(move || run(&devices))?;
        Ok(Reaper { queue: Some(queue), thread: Some(thread) })
    }

    /// Deletes the device of this index soon.
    pub fn take(&self, device: u32) {
        if let Some(queue) = &self.queue {
            // The thread lives as long as this end of the queue does.
            let _ = queue.send(device);
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(devices: &Receiver<u32>) {
    while let Ok(first) = devices.recv() {
        let mut batch = vec![first];
        let mut more = true;
        while more && batch.len() < MOST {
            match devices.recv_timeout(GATHER) {
                Ok(device) => batch.push(device),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => more = false,
            }
        }
        if let Err(error) = delete(&batch) {
            warn!(%error, devices = batch.len(), "devices of deleted pods stay for now; they are cut off");
        }
    }
}

/// Deletes devices by index; those that are gone already are no error.
pub fn delete(indices: &[u32]) -> Result<(), tortie_netlink::Error> {
    for result in Handle::open()?.delete_links(indices)? {
        match result {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
