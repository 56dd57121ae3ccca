//! The shape of the tree is tested: edges between layers, module docs, file sizes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::cargo;

/// Which layers a layer's crates may depend on. Apps and the tools beside them may use all.
const ALLOWED: [(&str, &[&str]); 4] = [
    ("model", &["model"]),
    ("logic", &["model", "logic"]),
    ("store", &["model", "store"]),
    ("dataplane", &["model", "logic", "dataplane"]),
];

/// The package whose code must never get into the binary.
const FAULTY: &str = "tortie-oracle";

/// Longest file of code, in lines without its inline tests, before it must be split.
const MAX_LINES: usize = 600;

/// Checks the shape; an error lists everything that is wrong.
pub fn tidy() -> Result<ExitCode> {
    let mut findings = edges()?;
    let mut files = Vec::new();
    for folder in ["crates", "lab", "xtask", "bench", "fuzz"] {
        collect(Path::new(folder), &mut files)?;
    }
    for file in &files {
        findings.extend(file_findings(file)?);
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing found", files.len());
        return Ok(ExitCode::SUCCESS);
    }
    bail!("tidy found {}:\n{}", findings.len(), findings.join("\n"))
}

fn edges() -> Result<Vec<String>> {
    let output = cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let layers: BTreeMap<&str, String> =
        packages.iter().filter_map(|p| Some((p["name"].as_str()?, layer(p["manifest_path"].as_str()?)?))).collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if package["dependencies"].as_array().into_iter().flatten().any(|d| d["name"] == FAULTY) {
            findings.push(format!("{name} depends on {FAULTY}: nothing may, it holds faults made on purpose"));
        }
        let Some(from) = layers.get(name) else { continue };
        let Some((_, allowed)) = ALLOWED.iter().find(|(layer, _)| layer == from) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let (Some(to_name), normal) = (dependency["name"].as_str(), dependency["kind"].is_null()) else { continue };
            let Some(to) = layers.get(to_name) else { continue };
            if normal && !allowed.contains(&to.as_str()) {
                findings.push(format!("{name} ({from}) depends on {to_name} ({to}): {from} may use {allowed:?} only"));
            }
        }
    }
    Ok(findings)
}

/// The layer of a crate: the folder below `crates`, or none for the tools beside it.
fn layer(manifest: &str) -> Option<String> {
    let (_, rest) = manifest.rsplit_once("/crates/")?;
    rest.split('/').next().map(str::to_owned)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            // What is generated is not ours to shape.
            if path.file_name().is_some_and(|name| name != "target" && name != "generated") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn file_findings(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(format!("{}: does not open with a //! line that says what it is for", file.display()));
    }
    let header = text.lines().take_while(|line| line.starts_with("//!")).count();
    if header > 40 {
        findings.push(format!("{}: its //! header has {header} lines", file.display()));
    }
    let code = text.lines().take_while(|line| *line != "#[cfg(test)]" && *line != "mod tests {").count();
    let is_test = file.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "examples")
        || file.file_name().is_some_and(|name| name == "tests.rs");
    if code > MAX_LINES && !is_test {
        findings.push(format!("{}: {code} lines of code; split it (at most {MAX_LINES})", file.display()));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_the_folder_below_crates() {
        assert_eq!(layer("/x/crates/model/net/Cargo.toml").as_deref(), Some("model"));
        assert_eq!(layer("/x/lab/Cargo.toml"), None);
    }
}
