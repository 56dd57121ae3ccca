//! A few pages over plain HTTP: health and metrics.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tiny_http::{Response, Server};
use tracing::debug;

/// A running HTTP listener; dropping it stops it.
pub struct Listener {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to serve. `page` has the status and the text of a path, which comes without its query.
    pub fn start(socket: TcpListener, page: impl Fn(&str) -> (u16, String) + Send + 'static) -> io::Result<Listener> {
        let server = Arc::new(Server::from_listener(socket, None).map_err(io::Error::other)?);
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn({
            let server = Arc::clone(&server);
            move || {
                for request in server.incoming_requests() {
                    let (code, text) = page(request.url().split('?').next().unwrap_or_default());
                    if let Err(error) = request.respond(Response::from_string(text).with_status_code(code)) {
                        debug!(%error, "an HTTP client went away");
                    }
                }
            }
        })?;
        Ok(Listener { server, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
