//! Tests that need a kernel of their own: the lab, with its nodes in namespaces, in a virtual machine with Debian's kernel.
//!
//! The machine's first file system holds one static shell, the modules, our binary, the test programs or the benchmarks,
//! and the tools that those ask, no more. What
//! the tests print comes over the serial line, where their summaries are read as those of any other run.

mod cpio;
mod kernel;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cargo, has, run, target};
use crate::image::libraries;
use crate::suite::{Counts, close, parse_result};

/// The tests that the machine runs: files of lab tests whose devices most machines' own kernel may lack.
const TESTS: [&str; 4] = ["ipip", "lab_ipip", "node_clean", "wireguard"];

/// Programs that tests ask, in place of the shell's own of that name.
const PROGRAMS: [&str; 3] = ["ip", "bridge", "nft"];

/// Modules, with which the machine's kernel can do what the lab asks for.
const MODULES: [&str; 34] = [
    "crc32c_generic",
    "veth",
    "bridge",
    "dummy",
    "tun",
    "vxlan",
    "ipip",
    "wireguard",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_objref",
    "nft_quota",
    "nft_redir",
    "nft_reject_inet",
    "nf_conntrack_netlink",
    "nf_log_syslog",
    "nfnetlink_log",
    "sch_ingress",
    "sch_tbf",
    "sch_netem",
    "cls_bpf",
    "overlay",
];

/// The longest that the machine may run; it emulates every instruction.
const DEADLINE: Duration = Duration::from_secs(1200);
/// What the machine prints last.
const END: &str = "vm: all ran";
/// What it prints when a benchmark fails or misses its target.
const MISSED: &str = "vm: the benchmark failed or missed a target";

/// What the machine is to run.
#[derive(Clone, Copy)]
enum Work<'a> {
    Tests { filter: Option<&'a str>, full: bool },
    Bench(&'a str),
}

/// Runs the tests in the machine and prints the summary; `filter`: a part of a test's name.
pub fn lab_vm(filter: Option<&str>, full: bool) -> Result<ExitCode> {
    Ok(close(counts(filter, full)?))
}

/// Runs a benchmark in the machine. Its processors are emulated: ratios say something, nothing else does.
pub fn bench(name: &str) -> Result<ExitCode> {
    let Counts { passed: _, failed, ignored } = work(Work::Bench(name))?;
    Ok(if failed + ignored == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests in the machine; without the programs that this takes, says so and counts each file as skipped.
pub fn counts(filter: Option<&str>, full: bool) -> Result<Counts> {
    work(Work::Tests { filter, full })
}

fn work(work: Work<'_>) -> Result<Counts> {
    let skipped = |why: String| {
        println!("skipped: tests in a virtual machine ({why})");
        Ok(Counts { ignored: u64::try_from(TESTS.len()).unwrap_or(u64::MAX), ..Counts::default() })
    };
    if std::env::consts::ARCH != "x86_64" {
        return skipped(format!("the machine is x86-64, and this one {}", std::env::consts::ARCH));
    }
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("bridge", "iproute2"),
        ("nft", "nftables"),
    ] {
        if !has(program) {
            return skipped(format!("{package} is not installed"));
        }
    }
    let kernel = match kernel::find() {
        Ok(kernel) => kernel,
        Err(error) => return skipped(format!("Debian's kernel can't be had: {error:#}")),
    };
    let (programs, binary) = build(work)?;
    let folder = target().join("vm");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join("initramfs.cpio");
    pack(&archive, &kernel, &programs, &binary, work)?;
    let counts = boot(&kernel.image, &archive)?;
    std::fs::remove_file(&archive)?;
    Ok(counts)
}

/// Builds the programs to run and the binary, with the features that the whole workspace has.
fn build(work: Work<'_>) -> Result<(Vec<PathBuf>, PathBuf)> {
    let mut args = vec!["build", "--workspace", "--locked", "--bin", "tortie"];
    let wanted: &[&str] = match work {
        Work::Tests { filter: _, full: _ } => &TESTS,
        Work::Bench(_) => &["tortie-bench"],
    };
    let kind = if matches!(work, Work::Bench(_)) { "--bin" } else { "--test" };
    args.extend(wanted.iter().flat_map(|name| [kind, name]));
    run(&mut cargo(&args))?;
    let output = cargo(&args).args(["--message-format=json"]).stderr(Stdio::null()).output()?;
    let messages =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut programs = Vec::new();
    let mut binary = None;
    for message in messages {
        let (Some(program), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str()) else {
            continue;
        };
        if wanted.contains(&name) {
            programs.push(PathBuf::from(program));
        } else if name == "tortie" {
            binary = Some(PathBuf::from(program));
        }
    }
    programs.sort();
    if programs.len() < wanted.len() {
        bail!("cargo built {} programs of {}", programs.len(), wanted.len());
    }
    Ok((programs, binary.context("cargo built no tortie")?))
}

fn pack(path: &Path, kernel: &kernel::Kernel, programs: &[PathBuf], binary: &Path, work: Work<'_>) -> Result<()> {
    let mut archive = cpio::Archive::create(path)?;
    for folder in ["bin", "dev", "etc", "lib", "modules", "proc", "root", "run", "sbin", "sys", "tests", "tmp", "var"] {
        archive.folder(folder)?;
    }
    archive.console()?;
    archive.copy("bin/busybox", &program("busybox")?)?;
    archive.copy("tests/tortie", binary)?;
    let mut script = init_head();
    for (number, module) in kernel.modules(&MODULES)?.iter().enumerate() {
        archive.copy(&format!("modules/{number}.ko"), module)?;
        script += &format!("insmod /modules/{number}.ko || echo 'vm: no module {}'\n", module.display());
    }
    let mut needed: BTreeSet<PathBuf> = libraries(binary)?.into_iter().collect();
    for name in PROGRAMS {
        let file = program(name)?;
        needed.extend(libraries(&file)?);
        archive.copy(&format!("sbin/{name}"), &file)?;
    }
    for file in programs {
        needed.extend(libraries(file)?);
        let name = file.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
        archive.copy(&format!("tests/{name}"), file)?;
        script += &match work {
            Work::Tests { filter, full } => {
                let env = if full { "TORTIE_FULL=1 " } else { "" };
                let filter = filter.unwrap_or_default();
                format!("echo 'vm: {name}'; {env}/tests/{name} --ignored --test-threads=1 --nocapture {filter} 2>&1\n")
            }
            Work::Bench(figure) => format!("/tests/{name} {figure} 2>&1 || echo '{MISSED}'\n"),
        };
    }
    add_libraries(&mut archive, &needed)?;
    script += &format!("echo '{END}'\nsync\npoweroff -f\n");
    archive.file("init", script.as_bytes())?;
    archive.finish()?;
    Ok(())
}

/// What the machine does before its tests.
fn init_head() -> String {
    let lines = [
        "#!/bin/busybox sh",
        "/bin/busybox --install -s /bin",
        "export PATH=/sbin:/bin HOME=/root TORTIE_BIN=/tests/tortie RUST_BACKTRACE=1",
        "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run",
        "mount -t tmpfs tmp /tmp; mount -t tmpfs var /var; mkdir -p /var/lib /var/run /dev/shm",
        "ln -sf /proc/self/fd /dev/fd; echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd; hostname vm",
        "ifconfig lo 127.0.0.1 up; uname -r",
        "",
    ];
    lines.join("\n")
}

/// Libraries where the loader looks for them, with the folders around.
fn add_libraries(archive: &mut cpio::Archive, needed: &BTreeSet<PathBuf>) -> Result<()> {
    let mut folders: BTreeSet<String> = ["lib".to_owned()].into();
    for library in needed {
        let path = library.to_str().and_then(|path| path.strip_prefix('/')).context("a library has a path")?;
        let parts: Vec<&str> = path.split('/').collect();
        for length in 1..parts.len() {
            let folder = parts[..length].join("/");
            if folders.insert(folder.clone()) {
                archive.folder(&folder)?;
            }
        }
        archive.copy(path, library)?;
    }
    Ok(())
}

fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not there"))
}

/// The running machine, which ends with this.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the machine until it ends, and sums what its tests say.
fn boot(image: &Path, archive: &Path) -> Result<Counts> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35", "-m", "3072", "-smp", "2"]);
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(archive);
    // Emulated timers come too late for the kernel to take them for real ones.
    command.args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on no_timer_check"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("can't start qemu")?;
    let output = child.stdout.take().context("its output is piped")?;
    let _machine = Machine(child);
    let (sender, lines) = channel();
    std::thread::spawn(move || send_lines(BufReader::new(output), &sender));
    let until = Instant::now() + DEADLINE;
    let mut counts = Counts::default();
    let mut ended = false;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                // What a program prints without a line's end comes before the summary's.
                if let Some((_, result)) = line.split_once("test result: ") {
                    counts.add(parse_result(result));
                }
                counts.failed += u64::from(line.contains(MISSED));
                ended |= line.contains(END);
            }
            Err(RecvTimeoutError::Disconnected) if ended => return Ok(Counts { ignored: 0, ..counts }),
            Err(RecvTimeoutError::Disconnected) => bail!("the virtual machine ended before everything ran"),
            Err(RecvTimeoutError::Timeout) => bail!("the virtual machine ran longer than {} s", DEADLINE.as_secs()),
        }
    }
}

fn send_lines(mut output: impl BufRead, sender: &Sender<String>) {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if sender.send(text).is_err() {
            return;
        }
        line.clear();
    }
}
