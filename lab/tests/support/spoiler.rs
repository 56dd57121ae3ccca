//! An interface with a common fault: it makes the checksums that hosts leave to it, but not those within VXLAN.
//!
//! Two ends of wires are taken off their bridge, and frames go from one to the other through this process with the notes
//! that hosts put on them; those on VXLAN are thrown away.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tortie_netlink::{Handle, Netns};

/// `struct virtio_net_hdr`, 10 bytes; the first is flags.
const NOTE: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const VXLAN: [u8; 2] = 4789_u16.to_be_bytes();

/// The running relay; ends when dropped.
pub struct Spoiler {
    stop: Arc<AtomicBool>,
    spoilt: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Spoiler {
    pub fn start(fabric: &Netns, one: &str, other: &str) -> Spoiler {
        let mut wires = Handle::open_in(fabric).unwrap();
        let indices = [one, other].map(|name| wires.link(name).unwrap().index);
        for index in indices {
            wires.set_link_controller(index, None).unwrap();
        }
        let (stop, spoilt) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let [a, b] = indices.map(|index| Arc::new(fabric.run(|| tap(index)).unwrap().unwrap()));
        let threads = [(a.clone(), b.clone()), (b, a)].map(|(from, to)| {
            let (stop, spoilt) = (stop.clone(), spoilt.clone());
            std::thread::spawn(move || relay(&from, &to, &stop, &spoilt))
        });
        Spoiler { stop, spoilt, threads: threads.into() }
    }

    /// How many frames it has spoilt.
    pub fn spoilt(&self) -> u64 {
        self.spoilt.load(Ordering::Relaxed)
    }
}

impl Drop for Spoiler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn tap(index: u32) -> io::Result<OwnedFd> {
    let all = libc::ETH_P_ALL as u16;
    // SAFETY: plain numbers; the result is looked at.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all.to_be())) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave it to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let one: libc::c_int = 1;
    option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &one)?;
    // What this process sends through the interface is none of its business.
    option(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &one)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 0, tv_usec: 200_000 })?;
    // SAFETY: an address of zero bytes is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    (address.sll_family, address.sll_protocol) = (libc::AF_PACKET as u16, all.to_be());
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives during the call, and its size is given.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

fn option<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value lives during the call, and its size is given.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn relay(from: &OwnedFd, to: &OwnedFd, stop: &AtomicBool, spoilt: &AtomicU64) {
    let mut bytes = vec![0_u8; NOTE + (1 << 17)];
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: the buffer is ours and of that length.
        let got = unsafe { libc::recv(from.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let Ok(length) = usize::try_from(got) else { continue };
        if length <= NOTE {
            continue;
        }
        let (note, frame) = bytes.split_at_mut(NOTE);
        let start = usize::from(u16::from_ne_bytes([note[6], note[7]]));
        if note[0] & NEEDS_CHECKSUM != 0 && within_vxlan(&frame[..length - NOTE], start) {
            note.fill(0);
            spoilt.fetch_add(1, Ordering::Relaxed);
        }
        // A frame that the other end does not take is a frame lost.
        // SAFETY: the buffer is ours and holds that many bytes.
        unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), length, 0) };
    }
}

/// Whether what begins at `start` is within VXLAN, by IPv4 and UDP to its port.
fn within_vxlan(frame: &[u8], start: usize) -> bool {
    let Some(header) = frame.get(14).map(|first| usize::from(first & 15) * 4) else { return false };
    frame.get(12..14) == Some(&[8, 0])
        && frame.get(23) == Some(&17)
        && frame.get(14 + header + 2..14 + header + 4) == Some(&VXLAN[..])
        && start > 14 + header
}
