//! Devices that others deleted are made again, and devices that belong to nobody are swept.
//!
//! What a device needs is kept in the state directory, a file a pod. A device that goes while its endpoint stays was
//! deleted by somebody, or its namespace was; in the first case it comes back as it was, with its address.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tortie_net::{IpNet, Mac};
use tortie_netlink::{Handle, Netns};
use tracing::{info, warn};

use super::Service;
use super::device::{self, Wanted};

/// Folder of the kept files, below the state directory.
const FOLDER: &str = "pods";

/// What a pod's device was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) interface: String,
    pub(super) ifname: String,
    pub(super) netns: String,
    /// The kernel's number of the namespace, never given twice: the path may be another namespace's by now.
    #[serde(default)]
    pub(super) netns_cookie: u64,
    /// The endpoint's namespace and name.
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) endpoint: String,
    pub(super) mac: String,
    pub(super) mtu: u32,
    pub(super) addresses: Vec<IpAddr>,
    /// Where the pod's routes lead; none for the default routes.
    #[serde(default)]
    pub(super) routes: Vec<IpNet>,
    pub(super) forwarding: bool,
}

/// The kept files.
pub(super) struct Keeper(PathBuf);

impl Keeper {
    pub(super) fn open(state_dir: &Path) -> io::Result<Keeper> {
        let folder = state_dir.join(FOLDER);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Keeper(folder))
    }

    /// The file of an interface; `None` for what is no interface's name, as the datastore may hold anything.
    fn file(&self, interface: &str) -> Option<PathBuf> {
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let named = !interface.is_empty() && !interface.starts_with('.') && interface.chars().all(good);
        named.then(|| self.0.join(interface))
    }

    /// Keeps what a device needs. A reader sees all of it or nothing.
    pub(super) fn keep(&self, kept: &Kept) -> io::Result<()> {
        let file = self.file(&kept.interface).ok_or(io::ErrorKind::InvalidInput)?;
        let new = self.0.join(format!(".{}", kept.interface));
        std::fs::write(&new, serde_json::to_vec(kept)?)?;
        std::fs::rename(new, file)
    }

    pub(super) fn forget(&self, interface: &str) {
        // What is not there need not be forgotten, and what stays is of no use without its endpoint.
        let _ = self.file(interface).map(std::fs::remove_file);
    }

    fn read(&self, interface: &str) -> Option<Kept> {
        serde_json::from_slice(&std::fs::read(self.file(interface)?).ok()?).ok()
    }

    /// Namespace and name of the endpoint that the interface was made for.
    pub(super) fn owner(&self, interface: &str) -> Option<(String, String)> {
        let Kept { namespace, endpoint, .. } = self.read(interface)?;
        (!endpoint.is_empty()).then_some((namespace, endpoint))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|n| !n.starts_with('.')).collect()
    }
}

/// The kernel's number of this thread's network namespace, unique since the machine started (Linux 5.14); `None` if it
/// tells none.
pub(super) fn own_cookie() -> Option<u64> {
    use nix::libc;
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).expect("eight is few");
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes, for which `cookie` has room.
    let answer = unsafe {
        let (value, length) = ((&raw mut cookie).cast(), &raw mut length);
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, length)
    };
    (answer == 0).then_some(cookie)
}

impl Service {
    /// Makes a device again that is gone although its endpoint is not; in a thread of its own, as the kernel may wait.
    pub fn mend(self: &Arc<Self>, interface: Arc<str>) {
        let service = self.clone();
        let spawned = std::thread::Builder::new().name("mend".to_owned()).spawn(move || service.mend_now(&interface));
        if let Err(error) = spawned {
            warn!(%error, "no thread to make a deleted device again");
        }
    }

    fn mend_now(&self, interface: &str) {
        // While ADD or DEL is at work on this interface, the device is theirs.
        let Ok(_turn) = self.turn(interface) else { return };
        let Some(kept) = self.keeper.read(interface) else { return };
        if Handle::open().is_ok_and(|mut handle| handle.link(interface).is_ok()) {
            // It was ADD itself that replaced an earlier device.
            return;
        }
        let Ok(netns) = Netns::open(&kept.netns) else {
            info!(interface, netns = kept.netns, "a pod's device went with its namespace");
            return;
        };
        if netns.run(own_cookie).ok().flatten() != Some(kept.netns_cookie) {
            info!(interface, netns = kept.netns, "a pod's device went with its namespace; another has its path by now");
            return;
        }
        let Ok(mac) = kept.mac.parse::<Mac>() else { return };
        let wanted = Wanted {
            host_name: &kept.interface,
            pod_name: &kept.ifname,
            netns: &netns,
            mtu: kept.mtu,
            mac,
            addresses: &kept.addresses,
            routes: &kept.routes,
            forwarding: kept.forwarding,
        };
        match Handle::open().map_err(Into::into).and_then(|mut host| device::create(&mut host, &wanted)) {
            Ok(()) => warn!(interface, "somebody deleted a pod's device; it is there again"),
            Err(error) => warn!(interface, %error, "a pod's deleted device can't be made again"),
        }
    }

    /// After the first picture: what an earlier run left half-done. `interfaces` are those of this node's endpoints.
    pub fn sweep(self: &Arc<Self>, interfaces: &BTreeSet<Arc<str>>, prefixes: &[Arc<str>]) {
        let links = match Handle::open().and_then(|mut handle| handle.links()) {
            Ok(links) => links,
            Err(error) => {
                warn!(%error, "devices that an earlier run left can't be looked for");
                return;
            }
        };
        let present: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        for kept in self.keeper.names() {
            match (interfaces.contains(kept.as_str()), present.contains(kept.as_str())) {
                (true, false) => self.mend(Arc::from(kept)),
                (true, true) => {}
                (false, _) => {
                    // Only what this node made and kept is swept: a device of another plugin may be in the making.
                    let index = links.iter().find(|link| link.name == kept).map(|link| link.index);
                    let ours = prefixes.iter().any(|prefix| kept.starts_with(&**prefix));
                    if let Some(index) = index.filter(|_| ours) {
                        info!(interface = kept, "sweeping a device whose endpoint is gone");
                        self.reaper.take(index);
                    }
                    self.keeper.forget(&kept);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_until_it_is_forgotten() {
        let folder = std::env::temp_dir().join(format!("tortie-keep-{}", std::process::id()));
        let keeper = Keeper::open(&folder).expect("a folder");
        let kept = Kept {
            interface: "cali1".into(),
            ifname: "eth0".into(),
            netns: "/run/netns/x".into(),
            netns_cookie: 7,
            namespace: "default".into(),
            endpoint: "n-k8s-p-eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            addresses: vec!["10.0.0.1".parse().expect("a literal")],
            routes: vec!["10.0.0.0/8".parse().expect("a literal")],
            forwarding: false,
        };
        keeper.keep(&kept).expect("written");
        assert_eq!((keeper.names(), keeper.read("cali1")), (vec!["cali1".to_owned()], Some(kept)));
        assert_eq!(keeper.owner("cali1"), Some(("default".into(), "n-k8s-p-eth0".into())));
        let outside = folder.with_extension("outside");
        std::fs::write(&outside, "{}").expect("written");
        let escape = format!("../{}", outside.file_name().and_then(|n| n.to_str()).expect("it has a name"));
        keeper.forget(&escape);
        assert!(outside.exists() && keeper.read(&escape).is_none(), "a name from the datastore is no path");
        std::fs::remove_file(outside).expect("removed");
        keeper.forget("cali1");
        assert_eq!((keeper.names(), keeper.read("cali1")), (vec![], None));
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_namespace_has_one_cookie_and_never_anothers() {
        let cookie = own_cookie().expect("Linux 5.14 or later");
        assert_eq!(own_cookie(), Some(cookie));
        // Making a namespace needs root.
        if let Ok(other) = Netns::unnamed() {
            assert_ne!(other.run(own_cookie).expect("its maker may enter it"), Some(cookie));
        }
    }
}
