//! The machine's kernel: Debian's own for clouds, taken from the package as it is and kept in the user's cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{run, target};

/// The package that names the newest kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel.
pub struct Kernel {
    /// The image that is booted.
    pub image: PathBuf,
    /// Its modules, by name with `_` for `-`.
    modules: BTreeMap<String, PathBuf>,
}

/// The kernel: one that was unpacked before, or else Debian's newest.
pub fn find() -> Result<Kernel> {
    let cache = folder();
    fs::create_dir_all(&cache).with_context(|| format!("can't make {}", cache.display()))?;
    if let Some(kernel) = unpacked(&cache)? {
        return Ok(kernel);
    }
    download(&cache)?;
    unpacked(&cache)?.with_context(|| format!("the package of {PACKAGE} holds no kernel"))
}

/// `TORTIE_VM_CACHE`, or a folder of the user's cache.
fn folder() -> PathBuf {
    let cache = || {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
    };
    match std::env::var_os("TORTIE_VM_CACHE") {
        Some(set) => set.into(),
        None => cache().unwrap_or_else(|| target().to_owned()).join("tortie-vm"),
    }
}

fn unpacked(cache: &Path) -> Result<Option<Kernel>> {
    let mut images: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(cache)? {
        let boot = entry?.path().join("boot");
        let files = fs::read_dir(boot).into_iter().flatten().flatten().map(|file| file.path());
        images
            .extend(files.filter(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"))));
    }
    images.sort();
    let Some(image) = images.pop() else { return Ok(None) };
    let root = image.ancestors().nth(2).context("the image lies in a folder")?.to_owned();
    let mut modules = BTreeMap::new();
    collect(&root.join("lib/modules"), &mut modules)?;
    Ok(Some(Kernel { image, modules }))
}

fn collect(folder: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
            modules.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Fetches the package by the system's own package tool. A half-unpacked one never counts.
fn download(cache: &Path) -> Result<()> {
    let depends = Command::new("apt-cache").args(["depends", PACKAGE]).output().context("apt-cache is not there")?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.filter(|name| name.starts_with("linux-image-"));
    let package = package.with_context(|| format!("no package {PACKAGE} is known here"))?;
    let half = cache.join(format!("{package}.half"));
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    fs::create_dir(&half)?;
    run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(&half))?;
    let archive =
        fs::read_dir(&half)?.flatten().map(|file| file.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
    let archive = archive.with_context(|| format!("apt-get left no package of {package}"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(half.join("root")))?;
    fs::rename(half.join("root"), cache.join(package))?;
    fs::remove_dir_all(&half)?;
    Ok(())
}

impl Kernel {
    /// The files of modules and of what they depend on, each after its dependencies. What the kernel has built in
    /// has no file.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut out = Vec::new();
        for name in names {
            self.add(name, &mut out, 0)?;
        }
        Ok(out)
    }

    fn add(&self, name: &str, out: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
        if depth > 32 {
            bail!("the modules around {name} depend on each other");
        }
        let Some(path) = self.modules.get(&name.replace('-', "_")) else { return Ok(()) };
        for dependency in depends(&fs::read(path)?) {
            self.add(&dependency, out, depth + 1)?;
        }
        if !out.contains(path) {
            out.push(path.clone());
        }
        Ok(())
    }
}

/// What a module says that it depends on: the text `depends=` in its section of facts about itself.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let text = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_its_dependencies() {
        assert_eq!(depends(b"x\0license=GPL\0depends=ip_tunnel,tunnel4\0retpoline=Y\0"), ["ip_tunnel", "tunnel4"]);
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
        assert!(depends(b"").is_empty());
    }
}
