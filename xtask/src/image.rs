//! The container image: an archive that `docker load`, `podman load` and `ctr images import` take, made without a
//! registry or a daemon.
//!
//! One layer: the binary, linked to nothing, under every path that upstream's manifests call, this machine's iptables
//! and ipset, and the notices of what others wrote. The same input gives the same bytes.

mod iptables;
mod notices;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::command::{cargo, run, target};

/// The names of the image; the first is that of the manifests.
pub const TAGS: [&str; 1] = [concat!("docker.io/tortie/tortie:v", env!("CARGO_PKG_VERSION"))];

/// The most that the image may take, bytes.
const MOST_BYTES: usize = 40_000_000;

/// Where the binary lies, and the names that lead to it.
const BINARY: &str = "usr/bin/calico";
const LINKS: [(&str, &str); 18] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("var/run", "../run"),
    ("usr/bin/tortie", "calico"),
    ("usr/bin/calico-node", "calico"),
    ("usr/bin/calico-felix", "calico"),
    ("usr/bin/calico-ipam", "calico"),
    ("usr/bin/calicoctl", "calico"),
    ("usr/bin/kube-controllers", "calico"),
    ("usr/bin/check-status", "calico"),
    ("usr/sbin/start_runit", "../bin/calico"),
    ("opt/cni/bin/install", "../../../usr/bin/calico"),
    ("opt/cni/bin/calico", "../../../usr/bin/calico"),
    ("opt/cni/bin/calico-ipam", "../../../usr/bin/calico"),
    ("calicoctl", "usr/bin/calico"),
    ("licenses/LICENSE", "../LICENSE"),
];
const FOLDERS: [&str; 17] = [
    "calico-secrets",
    "dev",
    "etc",
    "host",
    "licenses",
    "opt",
    "opt/cni",
    "opt/cni/bin",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
    "var",
];
const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

/// Makes the image. Without `binary`, builds one of the profile that needs no library of its host; with it, packs that
/// one and, if it needs libraries, those of this machine.
pub fn image(binary: Option<PathBuf>, profile: &str, output: Option<PathBuf>) -> Result<ExitCode> {
    let output = output.unwrap_or_else(|| target().join("tortie-image.tar"));
    let size = pack_for(binary, profile, &output, &TAGS)?;
    println!("{}: {size} bytes, {}", output.display(), TAGS[0]);
    if size > MOST_BYTES && profile != "dev" {
        bail!("the image has {size} bytes; at most {MOST_BYTES} are wanted");
    }
    Ok(ExitCode::SUCCESS)
}

/// The same without a word; its size in bytes.
pub fn pack_for(binary: Option<PathBuf>, profile: &str, output: &Path, tags: &[&str]) -> Result<usize> {
    let binary = match binary {
        Some(binary) => binary,
        None => build(profile)?,
    };
    pack(&binary, output, tags)
}

/// Builds the binary with the C library inside, so that it runs as a plugin on any host.
fn build(profile: &str) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo(&[
        "build",
        "--locked",
        "--package",
        "tortie",
        "--bin",
        "tortie",
        "--profile",
        profile,
        "--target",
        &triple,
    ]);
    // Packed relocations save megabytes of a program that may lie at any address.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs");
    run(&mut build)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let binary = target().join(triple).join(folder).join("tortie");
    // A C library before glibc 2.36 can't unpack them in a program without libraries.
    run(Command::new(&binary).arg("--version"))?;
    Ok(binary)
}

/// Packs one image of one layer; its size in bytes.
pub fn pack(binary: &Path, output: &Path, tags: &[&str]) -> Result<usize> {
    let mut layer = Layer::default();
    for folder in FOLDERS {
        layer.folder(folder, if folder == "tmp" { 0o1777 } else { 0o755 })?;
    }
    for (path, text) in FILES {
        layer.file(path, text.as_bytes(), 0o644)?;
    }
    layer.file("LICENSE", &fs::read("LICENSE")?, 0o644)?;
    layer.file(BINARY, &fs::read(binary).with_context(|| binary.display().to_string())?, 0o755)?;
    layer.folder("usr/lib", 0o755)?;
    layer.folder("usr/lib64", 0o755)?;
    for library in libraries(binary)? {
        layer.library(&library)?;
    }
    if !iptables::add(&mut layer)? {
        println!(
            "iptables and ipset are not on this machine, so the image is without them: it filters by nftables alone"
        );
    }
    for (path, to) in LINKS {
        layer.link(path, to)?;
    }
    notices::add(&mut layer)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/usr/bin/calico"],
            "Cmd": ["start_runit"],
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                // A folder that upstream's DaemonSet shares with the host, so that the plugin finds the node there.
                "TORTIE_STATE_DIR=/var/run/calico/tortie",
            ],
            "WorkingDir": "/",
        },
    });
    write(output, layer.done()?, config, tags)
}

/// Writes a docker-archive of one layer; its size in bytes.
pub fn write(output: &Path, layer: Vec<u8>, mut config: serde_json::Value, tags: &[&str]) -> Result<usize> {
    let digest = hex(&layer);
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [format!("sha256:{digest}")] });
    config["history"] = json!([{ "created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask" }]);
    let config = serde_json::to_vec(&config)?;
    let name = format!("{}.json", hex(&config));
    let place = format!("{digest}/layer.tar");
    let manifest = serde_json::to_vec(&json!([{ "Config": name, "RepoTags": tags, "Layers": [place] }]))?;
    let mut archive = Layer::default();
    archive.file(&name, &config, 0o644)?;
    archive.file(&place, &layer, 0o644)?;
    archive.file("manifest.json", &manifest, 0o644)?;
    let bytes = archive.done()?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(output, &bytes).with_context(|| output.display().to_string())?;
    Ok(bytes.len())
}

/// The libraries that a program loads, with the loader; none for one that is linked to nothing.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd is not there")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar archive whose bytes depend on its content alone.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
    /// Places that are taken.
    there: Vec<String>,
    /// Files of this machine that are in it.
    of_this_machine: Vec<PathBuf>,
}

impl Default for Layer {
    fn default() -> Self {
        Layer { tar: tar::Builder::new(Vec::new()), there: Vec::new(), of_this_machine: Vec::new() }
    }
}

impl Layer {
    fn header(kind: tar::EntryType, mode: u32, size: usize) -> Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(u64::try_from(size)?);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        Ok(header)
    }

    /// A folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.there.push(path.to_owned());
        let mut header = Layer::header(tar::EntryType::Directory, mode, 0)?;
        Ok(self.tar.append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    /// The folders above a file that are not there yet.
    pub fn parents(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<String> =
            path.ancestors().skip(1).map(|p| p.to_string_lossy().into_owned()).filter(|p| !p.is_empty()).collect();
        above.reverse();
        for folder in above {
            if !self.there.contains(&folder) {
                self.folder(&folder, 0o755)?;
            }
        }
        Ok(())
    }

    /// A file.
    pub fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = Layer::header(tar::EntryType::Regular, mode, content.len())?;
        Ok(self.tar.append_data(&mut header, path, content)?)
    }

    /// A file of this machine, unless there is one at its place already.
    fn new_file(&mut self, place: &Path, from: &Path) -> Result<()> {
        let name = place.to_string_lossy().into_owned();
        if self.there.contains(&name) {
            return Ok(());
        }
        self.parents(place)?;
        self.file(&name, &fs::read(from).with_context(|| from.display().to_string())?, 0o755)?;
        self.there.push(name);
        self.of_this_machine.push(from.to_owned());
        Ok(())
    }

    /// The files of this machine that are in it.
    fn of_this_machine(&self) -> &[PathBuf] {
        &self.of_this_machine
    }

    /// A library of this machine, where a loader looks for it.
    fn library(&mut self, library: &Path) -> Result<()> {
        let place = library.strip_prefix("/").context("a library has a whole path")?;
        let place = if place.starts_with("usr") { place.to_owned() } else { Path::new("usr").join(place) };
        self.new_file(&place, library)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        let mut header = Layer::header(tar::EntryType::Symlink, 0o777, 0)?;
        Ok(self.tar.append_link(&mut header, path, to)?)
    }

    /// A folder of this machine with all that is in it, as the root of the image.
    pub fn tree(&mut self, root: &Path, below: &Path) -> Result<()> {
        let mut names: Vec<_> =
            fs::read_dir(root.join(below))?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            let path = below.join(name);
            let shown = path.to_string_lossy().into_owned();
            let meta = fs::symlink_metadata(root.join(&path))?;
            if meta.is_symlink() {
                self.link(&shown, &fs::read_link(root.join(&path))?.to_string_lossy())?;
            } else if meta.is_dir() {
                self.folder(&shown, meta.permissions().mode() & 0o7777)?;
                self.tree(root, &path)?;
            } else {
                self.file(&shown, &fs::read(root.join(&path))?, meta.permissions().mode() & 0o7777)?;
            }
        }
        Ok(())
    }

    /// The archive's bytes.
    pub fn done(self) -> Result<Vec<u8>> {
        let mut bytes = self.tar.into_inner()?;
        bytes.flush()?;
        Ok(bytes)
    }
}

/// Packs a folder as an image: what the lab's own images are made of.
pub fn pack_folder(
    root: &Path,
    output: &Path,
    entrypoint: &[String],
    command: &[String],
    user: &str,
    tags: &[&str],
) -> Result<usize> {
    let mut layer = Layer::default();
    layer.tree(root, Path::new(""))?;
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": entrypoint,
            "Cmd": command,
            "User": user,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
    });
    write(output, layer.done()?, config, tags)
}
