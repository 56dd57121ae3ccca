//! One tool for every chore: `cargo xtask check|lab|lab-vm|mutants|test|bench|tidy|bless`.

mod bench;
mod command;
mod lab;
mod suite;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The chores of the Tortie workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format, lints with warnings denied, shape, and every test that needs no root.
    Check,
    /// Every test that needs root: real kernel, network namespaces, real peers.
    Lab {
        /// Run only tests whose name contains this.
        filter: Option<String>,
        /// Random and repeated tests at full length, which takes many minutes.
        #[arg(long)]
        full: bool,
    },
    /// Faults made on purpose in policy calculation, rules and their encoding: lists each, and whether a packet told.
    Mutants,
    /// Tests that need a kernel of their own, in a virtual machine.
    LabVm,
    /// Everything that can run on this machine; says what was skipped and why.
    Test,
    /// A benchmark beside its floor or peer; without a name, lists them.
    Bench {
        /// Name of the benchmark, or `all`.
        name: Option<String>,
        /// Arguments of the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The shape of the tree: allowed edges between layers, module docs, file sizes.
    Tidy,
    /// Rewrite the expected outputs of scenario and golden tests.
    Bless,
}

fn main() -> Result<ExitCode> {
    let Xtask { chore } = Xtask::parse();
    std::env::set_current_dir(command::root())?;
    match chore {
        Chore::Check => suite::check(),
        Chore::Lab { filter, full } => lab::lab(filter.as_deref(), full),
        Chore::Mutants => lab::mutants(),
        Chore::LabVm => Ok(lab::lab_vm()),
        Chore::Test => suite::all(),
        Chore::Bench { name, args } => bench::bench(name.as_deref(), &args),
        Chore::Tidy => tidy::tidy(),
        Chore::Bless => suite::bless(),
    }
}
