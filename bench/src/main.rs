//! Benchmarks: every figure beside its floor or peer of the same run, with the conditions of that run.
//!
//! `tortie-bench list` names them, `tortie-bench NAME` runs one, `tortie-bench all` every one. Each makes what it needs
//! out of network namespaces and takes it down again, also when it fails or is interrupted.

mod bed;
mod bgp;
mod calculation;
mod conditions;
mod figures;
mod node;
mod plugin;
mod process;
mod report;
mod samples;
mod scenario;
mod stores;
mod topology;
mod traffic;
mod watcher;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use bgp::others::Peer;
use conditions::Conditions;
use figures::{FIGURES, Figure};
use report::Report;

/// Benchmarks of Tortie beside their floor or peer of the same run.
#[derive(Parser)]
#[command(name = "tortie-bench")]
struct Bench {
    /// Name of the benchmark, `all`, or `list`.
    name: String,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Do only a part of the work, to see that the benchmark runs at all.
    #[arg(long)]
    quick: bool,
    /// Further peers beside BIRD, for the benchmarks that know them: `bgp-500k`.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The binary under test; by default the `tortie` beside this program.
    #[arg(long, env = "TORTIE_BENCH_BINARY")]
    binary: Option<PathBuf>,
    /// Arguments of the helper programs that benchmarks start in namespaces.
    #[arg(hide = true, trailing_var_arg = true)]
    rest: Vec<String>,
}

/// What every benchmark is given.
pub struct Setting {
    /// The binary under test.
    pub binary: PathBuf,
    /// Whether to do a part of the work only.
    pub quick: bool,
    /// Peers beside BIRD.
    pub peers: Vec<Peer>,
}

impl Setting {
    /// A number of repetitions: all of them, or a tenth when it only matters that it works.
    pub fn times(&self, full: usize) -> usize {
        if self.quick { (full / 10).max(3) } else { full }
    }
}

fn main() -> Result<ExitCode> {
    let Bench { name, json, quick, peers, binary, rest } = Bench::parse();
    if name == "traffic" {
        return traffic::program(&rest).map(|()| ExitCode::SUCCESS);
    }
    if name == "speaker" {
        return bgp::speaker::program(&rest).map(|()| ExitCode::SUCCESS);
    }
    if name == bgp::node::PROGRAM {
        return bgp::node::program(&rest).map(|()| ExitCode::SUCCESS);
    }
    if name == "calculation" && !rest.is_empty() {
        return calculation::program(&rest).map(|()| ExitCode::SUCCESS);
    }
    if name == "snapshot" && !rest.is_empty() {
        return stores::snapshot::program(&rest).map(|()| ExitCode::SUCCESS);
    }
    if name == "addresses" && !rest.is_empty() {
        return stores::addresses::program(&rest).map(|()| ExitCode::SUCCESS);
    }
    if name == "list" {
        for Figure { name, what, .. } in FIGURES {
            println!("{name:<16} {what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&Figure> = FIGURES.iter().filter(|figure| name == "all" || figure.name == name).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        bail!("no benchmark {name:?}: expected one of {}, all, list", names.join(", "));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("benchmarks need root: they make network namespaces (try: sudo)");
    }
    bed::take_over()?;
    let setting = Setting { binary: binary.map_or_else(find, Ok)?, quick, peers };
    let mut all_met = true;
    let mut reports = Vec::new();
    for figure in chosen {
        let conditions = Conditions::now();
        eprintln!("{}: {}", figure.name, figure.what);
        let findings = (figure.run)(&setting).with_context(|| format!("the benchmark {}", figure.name))?;
        let report = Report { name: figure.name, quick, conditions, findings };
        all_met &= report.met();
        if json {
            reports.push(report);
        } else {
            println!("{report}");
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    Ok(if all_met || quick { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The `tortie` of the same build.
fn find() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("tortie");
    if !beside.is_file() {
        bail!("{} is not there: build it (cargo build --release), or say --binary", beside.display());
    }
    Ok(beside)
}
