//! The plugins on the host: this program as `calico` and `calico-ipam`, and what else the image carries.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Settings, atomic};

/// The names that this program is called by as a plugin.
pub(crate) const OWN: [&str; 2] = ["calico", "calico-ipam"];

/// Puts the plugins into every folder that can be written; one is enough.
pub(crate) fn install(settings: &Settings) -> Result<()> {
    let mut reasons = Vec::new();
    let mut done = false;
    for folder in &settings.bin_dirs {
        match atomic::check_folder(folder, "/opt/cni/bin") {
            Ok(()) => {
                into(settings, folder)?;
                done = true;
            }
            Err(reason) => reasons.push((folder, reason)),
        }
    }
    if done {
        return Ok(());
    }
    let there = |folder: &&PathBuf| OWN.iter().all(|name| folder.join(name).is_file());
    if !settings.update && settings.bin_dirs.iter().find(there).is_some() {
        return Ok(());
    }
    // The second folder is a choice that few make; what is wrong with the first is what helps.
    match reasons.into_iter().next() {
        Some((_, reason)) => Err(reason.context("no folder for the CNI plugins can be written")),
        None => bail!("no folder for the CNI plugins is known"),
    }
}

fn into(settings: &Settings, folder: &Path) -> Result<()> {
    check_machine(&settings.program)?;
    let main = folder.join(OWN[0]);
    if settings.update || !main.is_file() {
        copy(&settings.program, &main)?;
    }
    let ipam = folder.join(OWN[1]);
    if settings.update || !ipam.is_file() {
        atomic::link(&main, &ipam)?;
    }
    for extra in extras(settings)? {
        let target = folder.join(extra.file_name().context("a file has a name")?);
        if settings.update || !target.is_file() {
            check_machine(&extra)?;
            copy(&extra, &target)?;
        }
    }
    for name in OWN {
        answers(&folder.join(name))?;
    }
    println!("install: the plugins calico and calico-ipam are in {}", folder.display());
    Ok(())
}

fn extras(settings: &Settings) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(&settings.extra_plugins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| settings.extra_plugins.display().to_string()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = OWN.contains(&name.as_str()) || name == "install";
        if !own && !settings.skip.contains(&name) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if same(from, to).unwrap_or(false) {
        return Ok(());
    }
    let file = File::open(from).with_context(|| format!("{} can't be read", from.display()))?;
    atomic::write(to, 0o755, file)
}

fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = a.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        b.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// Machines by their number in an ELF header (System V ABI, `e_machine`) and as the kernel names them.
const MACHINES: [(u16, &str); 5] = [(62, "x86_64"), (183, "aarch64"), (21, "ppc64le"), (22, "s390x"), (243, "riscv64")];

/// Whether a program is one for this machine.
fn check_machine(program: &Path) -> Result<()> {
    let mut head = [0; 20];
    let mut file = File::open(program).with_context(|| format!("{} can't be read", program.display()))?;
    if file.read_exact(&mut head).is_err() || &head[..4] != b"\x7fELF" {
        // A script; whether it runs is its own affair.
        return Ok(());
    }
    let bytes = [head[18], head[19]];
    let number = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let host = nix::sys::utsname::uname().context("the kernel does not say what machine this is")?;
    let host = host.machine().to_string_lossy();
    match MACHINES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) if *name != host => {
            bail!("{} is built for {name}, but this host is {host}: use the image for {host}", program.display())
        }
        _ => Ok(()),
    }
}

/// How often a plugin is tried that somebody still has open for writing, and the wait between.
const BUSY_TRIES: u32 = 40;
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// Whether an installed plugin runs.
fn answers(plugin: &Path) -> Result<()> {
    let mut command = Command::new(plugin);
    command.env_clear().env("CNI_COMMAND", "VERSION");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A child that another thread starts while the plugin is written has it open until it runs its own program.
    let busy = |ended: &io::Result<_>| matches!(ended, Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy);
    let mut ended = command.status();
    for _ in 0..BUSY_TRIES {
        if !busy(&ended) {
            break;
        }
        std::thread::sleep(BUSY_WAIT);
        ended = command.status();
    }
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("the installed plugin {} does not work: it ended with {status}", plugin.display()),
        Err(error) => bail!(
            "the installed plugin {} can't be run ({error}): is the host's file system mounted noexec?",
            plugin.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_another_machine_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("plugin");
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        let host = nix::sys::utsname::uname().expect("it says").machine().to_string_lossy().into_owned();
        let (number, name) = MACHINES.iter().find(|(_, name)| *name != host).expect("there are several");
        elf.extend(number.to_le_bytes());
        fs::write(&program, &elf).expect("written");
        let error = check_machine(&program).expect_err("it is not for this machine").to_string();
        assert!(error.contains(name) && error.contains(&host), "{error}");
        assert!(check_machine(Path::new("/proc/self/exe")).is_ok());
    }
}
