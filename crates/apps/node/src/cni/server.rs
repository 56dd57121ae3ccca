//! The socket that plugins call.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tortie_cni::spec::{CniError, code};
use tortie_cni::wire::{self, Reply, Request};
use tracing::{debug, warn};

use super::Service;

/// Calls at the same time; the next one is told to try again.
const MOST_CALLS: usize = 256;

/// How long a plugin may take to send its call.
const PATIENCE: Duration = Duration::from_secs(10);

/// The listening socket. Dropping it stops listening and removes the socket.
pub struct Server {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens below the state directory; only root may connect.
    pub fn start(state_dir: &Path, service: Arc<Service>) -> io::Result<Server> {
        std::fs::create_dir_all(state_dir)?;
        let path = state_dir.join(wire::SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("cni".to_owned()).spawn({
            let stopping = stopping.clone();
            move || listen(&listener, &service, &stopping)
        })?;
        Ok(Server { path, stopping, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // A connection of our own wakes the accept.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(listener: &UnixListener, service: &Arc<Service>, stopping: &AtomicBool) {
    let running = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%error, "a CNI call can't be accepted");
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        if running.fetch_add(1, Ordering::SeqCst) >= MOST_CALLS {
            running.fetch_sub(1, Ordering::SeqCst);
            refuse(stream);
            continue;
        }
        let (service, count) = (service.clone(), running.clone());
        let spawned = std::thread::Builder::new().name("cni-call".to_owned()).stack_size(512 * 1024).spawn(move || {
            answer(stream, &service);
            count.fetch_sub(1, Ordering::SeqCst);
        });
        if let Err(error) = spawned {
            running.fetch_sub(1, Ordering::SeqCst);
            warn!(%error, "no thread for a CNI call");
        }
    }
}

fn refuse(mut stream: UnixStream) {
    let error = CniError::new(code::TRY_AGAIN, format!("the node agent has {MOST_CALLS} CNI calls under way"));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
    let _ = wire::send(&mut stream, &Reply::Failed(error), None);
}

fn answer(mut stream: UnixStream, service: &Service) {
    let deadlines = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    let received = deadlines.and_then(|()| wire::receive::<Request>(&mut stream));
    let reply = match received {
        Ok((request, netns)) => {
            let reply = service.call(&request, netns.map(Into::into));
            if let Reply::Failed(error) = &reply {
                warn!(operation = ?request.operation, container = request.container_id, code = error.code, %error,
                    "CNI call failed");
            }
            reply
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
        Err(error) => Reply::Failed(CniError::new(code::DECODE, format!("the call can't be read: {error}"))),
    };
    if let Err(error) = wire::send(&mut stream, &reply, None) {
        // The plugin was killed or gave up; the runtime calls DEL.
        debug!(%error, "nobody waits for the answer of a CNI call");
    }
}
