//! The answering side: gives each byte back, and swallows streams.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;

use super::{Processor, pin};

/// Answers until it is killed. Prints `ready` once both ports listen.
pub(super) fn run(requests: u16, stream: u16) -> Result<()> {
    let requests = TcpListener::bind((Ipv4Addr::UNSPECIFIED, requests))?;
    let streams = TcpListener::bind((Ipv4Addr::UNSPECIFIED, stream))?;
    let swallower = std::thread::spawn(move || pin(Processor::Last).map(|()| swallow(&streams)));
    let answerer = std::thread::spawn(move || pin(Processor::Last).map(|()| answer(&requests)));
    println!("ready");
    let _ = swallower.join();
    let _ = answerer.join();
    Ok(())
}

fn answer(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        let _ = stream.set_nodelay(true);
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) && matches!(stream.write(&byte), Ok(1)) {}
    }
}

fn swallow(listener: &TcpListener) {
    let mut buffer = vec![0; 128 << 10];
    for mut stream in listener.incoming().flatten() {
        let mut total: u64 = 0;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(got) => total += got as u64,
            }
        }
        // What arrived is what counts: the sender's own buffer may hold the rest.
        let _ = stream.write_all(&total.to_be_bytes());
    }
}
