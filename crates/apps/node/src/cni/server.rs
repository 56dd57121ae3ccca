//! The socket that plugins call.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{Shutdown, shutdown};
use tortie_cni::spec::{CniError, code};
use tortie_cni::wire::{self, Operation, Reply, Request};
use tracing::{debug, warn};

use super::Service;

/// Calls at the same time; the next one is told to try again.
const MOST_CALLS: usize = 256;

/// Name of the lock below the state directory.
const LOCK: &str = "node.lock";

/// How long a plugin may take to send its call.
const PATIENCE: Duration = Duration::from_secs(10);

/// The listening socket. Dropping it stops listening and removes the socket.
pub struct Server {
    sockets: Vec<Socket>,
    stopping: Arc<AtomicBool>,
    /// Held as long as this node runs, so that a second one does not take its socket and fight for the kernel.
    _lock: Flock<File>,
}

impl Server {
    /// Listens below the state directory; only root may connect.
    pub fn start(state_dir: &Path, service: Arc<Service>) -> io::Result<Server> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
        let lock = lock(&state_dir.join(LOCK))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let open = |path, asks| Socket::open(path, asks, &service, &stopping);
        let sockets = vec![
            open(state_dir.join(wire::SOCKET), Asks::Anything)?,
            open(wire::status_socket(state_dir), Asks::State)?,
        ];
        Ok(Server { sockets, stopping, _lock: lock })
    }
}

/// What may be asked on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// Anything, by root.
    Anything,
    /// The node's state, by anybody.
    State,
}

impl Asks {
    fn allows(self, operation: Operation) -> bool {
        match operation {
            Operation::NodeStatus | Operation::BgpRoutes => true,
            Operation::Add
            | Operation::Del
            | Operation::Check
            | Operation::Status
            | Operation::Gc
            // Who speaks with whom is not for everybody.
            | Operation::Drops
            | Operation::IpamAdd
            | Operation::PodCidrs
            | Operation::IpamDel => self == Asks::Anything,
        }
    }
}

/// One listening socket and its thread.
struct Socket {
    path: PathBuf,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    fn open(path: PathBuf, asks: Asks, service: &Arc<Service>, stopping: &Arc<AtomicBool>) -> io::Result<Socket> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(&path)?);
        let mode = match asks {
            Asks::Anything => 0o600,
            Asks::State => 0o666,
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        let thread = std::thread::Builder::new().name("cni".to_owned()).spawn({
            let (listener, service, stopping) = (listener.clone(), service.clone(), stopping.clone());
            move || listen(&listener, asks, &service, &stopping)
        })?;
        Ok(Socket { path, listener, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for socket in &mut self.sockets {
            // This ends the accept, whoever has the socket's path by now.
            let _ = shutdown(socket.listener.as_raw_fd(), Shutdown::Both);
            if let Some(thread) = socket.thread.take() {
                let _ = thread.join();
            }
            let _ = std::fs::remove_file(&socket.path);
        }
    }
}

/// Waits a moment for a node that is just ending, such as a killed one that was started again.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let mut file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    for _ in 0..60 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = format!("{} is locked: another node agent runs with this state directory", path.display());
    Err(io::Error::new(io::ErrorKind::AddrInUse, text))
}

fn listen(listener: &UnixListener, asks: Asks, service: &Arc<Service>, stopping: &AtomicBool) {
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
            answer(stream, asks, &service);
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

fn answer(mut stream: UnixStream, asks: Asks, service: &Service) {
    let deadlines = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    let received = deadlines.and_then(|()| wire::receive::<Request>(&mut stream));
    let reply = match received {
        Ok((request, _)) if !asks.allows(request.operation) => {
            Reply::Failed(CniError::new(code::DECODE, "this socket answers questions about the node's state alone"))
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{AgentHandle, Inbox};
    use crate::health::Health;

    #[test]
    fn one_node_a_state_directory_and_it_stops_whoever_has_its_path() {
        let folder = std::env::temp_dir().join(format!("tortie-server-{}", std::process::id()));
        let (_inbox, post) = Inbox::new().expect("a channel");
        let agent = AgentHandle::new(post, Arc::new(Health::default()));
        let store = Arc::new(tortie_store::MemoryStore::new());
        let service = Arc::new(Service::new(store, agent, "n".into(), 1500, &folder).expect("a folder"));
        let first = Server::start(&folder, service.clone()).expect("nobody else is there");
        let path = folder.join(wire::SOCKET);
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
        let error = Server::start(&folder, service.clone()).err().expect("the first one runs").to_string();
        assert!(error.contains("another node agent"), "{error}");
        assert!(UnixStream::connect(&path).is_ok(), "the first one still has its socket");
        std::fs::remove_file(&path).expect("somebody removes it");
        drop(first);
        drop(Server::start(&folder, service).expect("the first one is gone"));
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
