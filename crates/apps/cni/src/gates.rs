//! `readiness_gates`: URLs that must answer well before ADD does anything.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::spec::{CniError, code};

/// How long a gate may stay shut, as upstream has it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Waits until every gate answers with a code from 200 to 299.
pub(crate) fn pass(gates: &[String]) -> Result<(), CniError> {
    let parsed = gates.iter().map(|gate| Gate::read(gate)).collect::<Result<Vec<_>, _>>()?;
    let until = Instant::now() + PATIENCE;
    for (gate, url) in parsed.iter().zip(gates) {
        while let Err(why) = gate.answers() {
            if Instant::now() + PAUSE > until {
                let waited = PATIENCE.as_secs();
                let text = format!("the readiness gate {url} stayed shut for {waited} seconds: {why}");
                return Err(CniError::new(code::TRY_AGAIN, text));
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// A URL, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Gate {
    host: String,
    port: u16,
    path: String,
}

impl Gate {
    fn read(url: &str) -> Result<Gate, CniError> {
        let wrong = || {
            let text = format!("readiness_gates has {url:?}: expected a URL such as http://localhost:9099/readiness");
            CniError::new(code::INVALID_CONFIG, text)
        };
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (place, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (place, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || url.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Gate { host: host.to_owned(), port, path: path.to_owned() })
    }

    /// Asks once.
    fn answers(&self) -> Result<(), String> {
        let Gate { host, port, path } = self;
        let told = |error: std::io::Error| error.to_string();
        let address = (host.as_str(), *port).to_socket_addrs().map_err(told)?.next().ok_or("it has no address")?;
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE).map_err(told)?;
        stream
            .set_read_timeout(Some(DEADLINE))
            .and_then(|()| stream.set_write_timeout(Some(DEADLINE)))
            .map_err(told)?;
        let name = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(told)?;
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < 200 && stream.read(&mut byte).map_err(told)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        match line.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()) {
            Some(200..=299) => Ok(()),
            Some(_) => Err(format!("it answered {line:?}")),
            None => Err("it did not answer HTTP".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn urls_are_taken_apart() {
        let gate = |host: &str, port, path: &str| Gate { host: host.into(), port, path: path.into() };
        for (url, wanted) in [
            ("http://localhost:9099/readiness", gate("localhost", 9099, "/readiness")),
            ("http://10.0.0.1", gate("10.0.0.1", 80, "/")),
            ("http://[::1]:80/x?y", gate("::1", 80, "/x?y")),
            ("http://[::1]/", gate("::1", 80, "/")),
        ] {
            assert_eq!(Gate::read(url).expect(url), wanted);
        }
        for wrong in ["localhost:9099", "https://x/", "http://", "http://x:port/", "http://x/ y"] {
            assert_eq!(Gate::read(wrong).expect_err(wrong).code, code::INVALID_CONFIG);
        }
    }

    #[test]
    fn a_gate_opens_when_it_answers_well() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        let server = std::thread::spawn(move || {
            for code in ["503 no", "200 OK"] {
                let (mut stream, _) = listener.accept().expect("somebody asks");
                let _ = stream.read(&mut [0; 512]);
                stream.write_all(format!("HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n").as_bytes()).expect("written");
            }
        });
        pass(&[format!("http://127.0.0.1:{port}/")]).expect("it opens the second time");
        server.join().expect("both were asked");
        pass(&[]).expect("there is none");
    }

    proptest::proptest! {
        #[test]
        fn no_url_makes_it_panic(url in ".{0,60}") {
            let _ = Gate::read(&url);
        }
    }
}
