//! The asking side.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Kind, Processor, pin};
use crate::samples::Samples;

/// Measures for some seconds. A refused or lost request is an error.
pub(super) fn run(kind: Kind, server: SocketAddr, seconds: f64) -> Result<Samples> {
    let until = Duration::from_secs_f64(seconds);
    match kind {
        Kind::RoundTrip => {
            pin(Processor::Last)?;
            let mut stream = connect(server)?;
            repeat(until, || ask(&mut stream))
        }
        Kind::Connection => {
            pin(Processor::Last)?;
            repeat(until, || ask(&mut connect(server)?))
        }
        Kind::Stream => stream(server, until),
    }
}

fn repeat(until: Duration, mut one: impl FnMut() -> Result<()>) -> Result<Samples> {
    let begun = Instant::now();
    let mut micros = Samples::default();
    while begun.elapsed() < until {
        let start = Instant::now();
        one()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(micros)
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    // Closing resets, so that no port stays taken for a minute.
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>())?;
    // SAFETY: the pointer is to a linger of this frame with its own length; the socket lives as long as the stream.
    unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
    };
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [1];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    Ok(())
}

fn stream(server: SocketAddr, until: Duration) -> Result<Samples> {
    pin(Processor::First)?;
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    let block = vec![0; 128 << 10];
    let begun = Instant::now();
    while begun.elapsed() < until {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let bits = u64::from_be_bytes(total) as f64 * 8.0;
    Ok(Samples::from(bits / begun.elapsed().as_secs_f64() / 1e9))
}
