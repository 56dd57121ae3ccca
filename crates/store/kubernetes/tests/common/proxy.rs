//! A server between the store and the API server that answers with faults at random and breaks connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;

use crate::common::Cluster;

/// What the proxy does to requests.
pub struct Proxy {
    pub port: u16,
    dice: AtomicU64,
    /// Whether there are faults at the moment.
    pub faulty: AtomicBool,
    /// Whether nothing is answered at all.
    pub away: AtomicBool,
    /// Faults so far, by what they were.
    pub faults: [AtomicU64; 7],
}

/// One request.
struct Asked {
    method: String,
    path: String,
    content: String,
    body: Vec<u8>,
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut content) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "content-type" => content = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, content, body })
}

fn answer(stream: &mut TcpStream, code: u16, reason: &str) {
    let body =
        format!(r#"{{"kind":"Status","status":"Failure","code":{code},"reason":"{reason}","message":"by the test"}}"#);
    let head = format!(
        "HTTP/1.1 {code} {reason}\r\nConnection: close\r\nRetry-After: 0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

impl Proxy {
    /// Starts one in front of a cluster.
    pub fn start(cluster: &'static Cluster, seed: u64) -> &'static Proxy {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = socket.local_addr().expect("an address").port();
        let proxy: &'static Proxy = Box::leak(Box::new(Proxy {
            port,
            dice: AtomicU64::new(seed),
            faulty: AtomicBool::new(true),
            away: AtomicBool::new(false),
            faults: Default::default(),
        }));
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                std::thread::spawn(move || proxy.serve(cluster, stream));
            }
        });
        proxy
    }

    fn roll(&self, sides: u64) -> u64 {
        let next = |seed: u64| seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = self.dice.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seed| Some(next(seed)));
        (before.unwrap_or_default() >> 33) % sides
    }

    fn count(&self, fault: usize) {
        self.faults[fault].fetch_add(1, Ordering::Relaxed);
    }

    fn serve(&self, cluster: &Cluster, mut stream: TcpStream) {
        let Some(asked) = read(&stream) else { return };
        if self.away.load(Ordering::Relaxed) {
            return;
        }
        let writes = asked.method != "GET";
        let lists = asked.path.contains("limit=") || asked.path.contains("watch=");
        let fault = if self.faulty.load(Ordering::Relaxed) { self.roll(30) } else { u64::MAX };
        match fault {
            0 => (self.count(0), answer(&mut stream, 429, "TooManyRequests")).1,
            1 => (self.count(1), answer(&mut stream, 500, "InternalError")).1,
            2 if writes => (self.count(2), answer(&mut stream, 409, "Conflict")).1,
            2 if lists => (self.count(3), answer(&mut stream, 410, "Expired")).1,
            // Closed without a word, before or after it was done.
            3 => self.count(4),
            4 if writes => {
                self.count(5);
                let _ = self.forward(cluster, &asked);
            }
            _ => self.pass(cluster, &asked, stream),
        }
    }

    fn forward(&self, cluster: &Cluster, asked: &Asked) -> Option<http::Response<Body>> {
        let request =
            Request::builder().method(asked.method.as_str()).uri(&asked.path).header("content-type", &asked.content);
        cluster.send(request.body(Body::from(asked.body.clone())).ok()?).ok()
    }

    /// Hands the answer on; a watch breaks at some point, perhaps in the middle of a line.
    fn pass(&self, cluster: &Cluster, asked: &Asked, mut stream: TcpStream) {
        let Some(response) = self.forward(cluster, asked) else { return };
        let watches = asked.path.contains("watch=");
        let mut left = if watches && self.faulty.load(Ordering::Relaxed) { self.roll(20_000) } else { u64::MAX };
        let head = format!(
            "HTTP/1.1 {} x\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n",
            response.status().as_u16()
        );
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
        let mut body = response.into_body();
        while let Some(Ok(frame)) = cluster.runtime.block_on(body.frame()) {
            let Ok(data) = frame.into_data() else { return };
            let part = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if stream.write_all(&data[..part]).is_err() || self.away.load(Ordering::Relaxed) {
                return;
            }
            left -= part as u64;
            if left == 0 {
                self.count(6);
                return;
            }
        }
    }
}
