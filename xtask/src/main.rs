//! One tool for every chore: `cargo xtask check|lab|lab-k8s|lab-vm|mutants|test|bench|tidy|image|manifests|bless|codegen`.

mod bench;
mod codegen;
mod command;
mod image;
mod k8s;
mod lab;
mod suite;
mod tidy;
mod vm;

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
        /// Instead, every test file that is not about one store, on this one alone.
        #[arg(long, conflicts_with = "full")]
        store: Option<lab::OtherStore>,
    },
    /// Faults made on purpose in policy calculation, rules and their encoding: lists each, and whether a packet told.
    Mutants,
    /// Tests that need a kernel of their own, in a virtual machine.
    LabVm {
        /// Run only tests whose name contains this.
        filter: Option<String>,
        /// Random and repeated tests at full length.
        #[arg(long)]
        full: bool,
        /// Run this benchmark instead of tests, built for development: what the kernel does is what it has there.
        #[arg(long, conflicts_with_all = ["filter", "full"])]
        bench: Option<String>,
    },
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
    /// The container image, as an archive that any container tool loads.
    Image {
        /// Pack this binary instead of building one that needs no library.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
        /// Cargo's profile: release, dist or dev.
        #[arg(long, default_value = "dist")]
        profile: String,
        /// The archive; by default in the build folder.
        #[arg(long)]
        output: Option<std::path::PathBuf>,
    },
    /// A real Kubernetes cluster with Tortie on it, and Kubernetes' own network tests.
    LabK8s(k8s::Options),
    /// A folder as an image of one layer, for the lab's own images.
    #[command(hide = true)]
    Pack {
        /// The folder.
        root: std::path::PathBuf,
        /// The archive.
        output: std::path::PathBuf,
        /// Names of the image.
        #[arg(long = "tag", required = true)]
        tags: Vec<String>,
        /// Words of the entry point.
        #[arg(long)]
        entrypoint: Vec<String>,
        /// Words of the command.
        #[arg(long)]
        command: Vec<String>,
        /// Who it runs as.
        #[arg(long, default_value = "")]
        user: String,
    },
    /// The CRDs and manifests that are made from the types.
    Manifests,
    /// Rewrite the expected outputs of scenario and golden tests.
    Bless,
    /// Make the code that is generated and checked in anew.
    Codegen,
}

fn main() -> Result<ExitCode> {
    let Xtask { chore } = Xtask::parse();
    std::env::set_current_dir(command::root())?;
    match chore {
        Chore::Check => suite::check(),
        Chore::Lab { filter, full: _, store: Some(store) } => lab::lab_on(store, filter.as_deref()),
        Chore::Lab { filter, full, store: None } => lab::lab(filter.as_deref(), full),
        Chore::Mutants => lab::mutants(),
        Chore::LabVm { filter: _, full: _, bench: Some(name) } => vm::bench(&name),
        Chore::LabVm { filter, full, bench: None } => vm::lab_vm(filter.as_deref(), full),
        Chore::Test => suite::all(),
        Chore::Bench { name, args } => bench::bench(name.as_deref(), &args),
        Chore::Tidy => tidy::tidy(),
        Chore::Image { binary, profile, output } => image::image(binary, &profile, output),
        Chore::LabK8s(options) => k8s::lab(&options),
        Chore::Pack { root, output, tags, entrypoint, command, user } => {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            image::pack_folder(&root, &output, &entrypoint, &command, &user, &tags).map(|_| ExitCode::SUCCESS)
        }
        Chore::Manifests => suite::manifests(),
        Chore::Bless => suite::bless(),
        Chore::Codegen => codegen::codegen(),
    }
}
