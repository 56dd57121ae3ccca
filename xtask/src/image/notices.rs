//! Notices of what others wrote and the image carries: their names, licences and the texts of these.
//!
//! Crates that are linked in come from Cargo's own account of the build, Debian's programs and libraries from the package
//! that they belong to. What has no text anywhere keeps the image from being made.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Layer;
use crate::command::cargo;

/// Where crates are told.
pub(super) const CRATES: &str = "licenses/THIRD-PARTY-CRATES";

/// Where Rust's standard library is told; Rust ships this file.
const STANDARD_LIBRARY: &str = "licenses/rust-standard-library.html";

/// Texts of crates whose package and repository's packages have none: `NAME.txt`, as the repository has it.
const KEPT: &str = "xtask/src/image/texts";

/// The packages whose code is linked into a binary that loads no library.
const LINKED: [&str; 2] = ["libc6-dev", "libgcc-s1"];

/// How files that hold a licence or a notice begin, in small letters.
const TEXTS: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// A crate that is linked into the binary and is not of this workspace.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    name: String,
    version: String,
    /// SPDX expression.
    licence: String,
    authors: Vec<String>,
    repository: Option<String>,
    /// Its licences and notices.
    texts: Vec<PathBuf>,
}

/// Adds them all.
pub(super) fn add(layer: &mut Layer) -> Result<()> {
    layer.file(CRATES, told(&crates(&metadata()?)?)?.as_bytes(), 0o644)?;
    let library = rust_documents()?.join("COPYRIGHT-library.html");
    layer.file(STANDARD_LIBRARY, &fs::read(&library).with_context(|| library.display().to_string())?, 0o644)?;
    let mut packages: BTreeSet<String> = LINKED.iter().map(|name| (*name).to_owned()).collect();
    for file in layer.of_this_machine() {
        packages.insert(package_of(file)?);
    }
    for package in packages {
        let notice = Path::new("/usr/share/doc").join(&package).join("copyright");
        let text = fs::read(&notice)
            .with_context(|| format!("{}: a file of the package {package} is in the image", notice.display()))?;
        layer.file(&format!("licenses/{package}"), &text, 0o644)?;
    }
    Ok(())
}

/// What Cargo knows of the workspace and all below it.
fn metadata() -> Result<Value> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", &triple])
        .output()
        .context("cargo metadata can't be started")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata answers no JSON")
}

/// The crates of others that are linked into the package `tortie`: no build scripts, no procedural macros.
fn crates(metadata: &Value) -> Result<Vec<Crate>> {
    let packages: HashMap<&str, &Value> =
        list(&metadata["packages"]).iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes: HashMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let is_root = |package: &&&Value| package["name"] == "tortie" && package["source"].is_null();
    let root = packages.values().find(is_root).and_then(|package| package["id"].as_str());
    let mut open = vec![root.context("cargo metadata has no package tortie")?];
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    while let Some(id) = open.pop() {
        let package = packages.get(id).with_context(|| format!("cargo metadata has no package {id}"))?;
        let macros =
            list(&package["targets"]).iter().any(|target| list(&target["kind"]).contains(&"proc-macro".into()));
        if macros || !seen.insert(id) {
            continue;
        }
        if !package["source"].is_null() {
            found.push(one(package)?);
        }
        let node = nodes.get(id).with_context(|| format!("cargo metadata does not resolve {id}"))?;
        let linked = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        open.extend(list(&node["deps"]).iter().filter(linked).filter_map(|dependency| dependency["pkg"].as_str()));
    }
    found.sort();
    Ok(found)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn one(package: &Value) -> Result<Crate> {
    let word = |key: &str| package[key].as_str().map(str::to_owned);
    let folder = word("manifest_path").map(PathBuf::from).and_then(|path| path.parent().map(Path::to_owned));
    let (Some(name), Some(version), Some(folder)) = (word("name"), word("version"), folder) else {
        bail!("cargo metadata: a package without name, version or place: {}", package["id"]);
    };
    let licence = word("license").with_context(|| format!("{name} {version} names no licence"))?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().to_lowercase();
        if TEXTS.iter().any(|start| file.starts_with(start)) && entry.path().is_file() {
            texts.push(entry.path());
        }
    }
    texts.sort();
    let authors = list(&package["authors"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let repository = word("repository").map(|url| repository(&url));
    Ok(Crate { name, version, licence, authors, repository, texts })
}

/// Where a crate comes from, without the folder in it: crates of one repository share their licence.
fn repository(url: &str) -> String {
    let url = url.trim_end_matches('/').trim_end_matches(".git");
    url.split("/tree/").next().unwrap_or(url).to_owned()
}

/// The names of all crates, and each text once with those that it is of.
fn told(crates: &[Crate]) -> Result<String> {
    let mut whole = String::from("Tortie contains these crates, under the licences that stand beside them.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in crates {
        let name = format!("{} {}", part.name, part.version);
        writeln!(whole, "{name}: {}{}", part.licence, from(part))?;
        for text in texts_of(part, crates)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, of) in texts {
        write!(whole, "\n{}\n{}\n\n{}\n", "=".repeat(80), of.join(", "), text.trim_end())?;
    }
    Ok(whole)
}

fn from(part: &Crate) -> String {
    part.repository.as_ref().map_or_else(String::new, |url| format!(", {url}"))
}

/// The texts of a crate: its own, or of another one from its repository, or what is kept here, or the licence's own with
/// the authors' names.
fn texts_of(part: &Crate, all: &[Crate]) -> Result<Vec<String>> {
    let beside = || all.iter().find(|other| other.repository == part.repository && !other.texts.is_empty());
    let of = if part.texts.is_empty() && part.repository.is_some() { beside() } else { Some(part) };
    let mut texts = Vec::new();
    for file in of.map_or(&[][..], |of| &of.texts) {
        texts.push(String::from_utf8_lossy(&fs::read(file).with_context(|| file.display().to_string())?).into_owned());
    }
    if !texts.is_empty() {
        return Ok(texts);
    }
    let kept = crate::command::root().join(KEPT).join(format!("{}.txt", part.name));
    if let Ok(text) = fs::read_to_string(kept) {
        return Ok(vec![text]);
    }
    let folder = rust_documents()?.join("licenses");
    let ids = part.licence.split([' ', '/', '(', ')']).filter(|word| !["", "OR", "AND", "WITH"].contains(word));
    let text = ids.map(|id| folder.join(format!("{id}.txt"))).find_map(|file| fs::read_to_string(file).ok());
    let text = text.with_context(|| {
        format!(
            "{} {}: no text of its licence {} in its package, beside it, or in {}",
            part.name,
            part.version,
            part.licence,
            folder.display()
        )
    })?;
    let by = if part.authors.is_empty() { format!("the authors of {}", part.name) } else { part.authors.join(", ") };
    Ok(vec![format!("Copyright of {by}\n\n{text}")])
}

/// Where the toolchain keeps its own notices.
fn rust_documents() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc can't be started")?;
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("share/doc/rust"))
}

/// The Debian package that a file of this machine belongs to.
fn package_of(file: &Path) -> Result<String> {
    // With /lib and /usr/lib one folder, a package may know its file by either name.
    let other = match file.strip_prefix("/usr") {
        Ok(below) => Path::new("/").join(below),
        Err(_) => Path::new("/usr").join(file.strip_prefix("/").unwrap_or(file)),
    };
    for name in [file, &other] {
        let output = Command::new("dpkg-query").arg("-S").arg(name).output().context("dpkg-query can't be started")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(package) = text.split([':', ',']).next().filter(|_| output.status.success()) {
            return Ok(package.to_owned());
        }
    }
    bail!("{} goes into the image, but is of no Debian package, so nobody knows its licence", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_is_linked_has_its_licence_and_a_text() {
        std::env::set_current_dir(crate::command::root()).expect("the workspace");
        let crates = crates(&metadata().expect("cargo's account")).expect("whole");
        let names: Vec<&str> = crates.iter().map(|part| part.name.as_str()).collect();
        for linked in ["tokio", "libsqlite3-sys", "ring", "rustls"] {
            assert!(names.contains(&linked), "{linked} is linked in");
        }
        for other in ["tortie", "tortie-node", "serde_derive", "proptest"] {
            assert!(!names.contains(&other), "{other} is ours, a macro or a test's");
        }
        let told = told(&crates).expect("a text for each");
        let (listed, texts) = told.split_once(&"=".repeat(80)).expect("texts follow the list");
        for part in &crates {
            let name = format!("{} {}", part.name, part.version);
            assert!(listed.contains(&format!("\n{name}: {}", part.licence)), "{name} is listed");
            assert!(texts.contains(&name), "{name} has a text");
        }
        assert!(texts.contains("TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"));
    }

    #[test]
    fn every_file_of_this_machine_in_the_image_has_its_notice() {
        std::env::set_current_dir(crate::command::root()).expect("the workspace");
        let mut layer = Layer::default();
        let program = std::env::current_exe().expect("this test");
        for library in super::super::libraries(&program).expect("it needs some") {
            layer.library(&library).expect("it is there");
        }
        assert!(!layer.of_this_machine().is_empty());
        add(&mut layer).expect("Debian knows them all");
        let bytes = layer.done().expect("an archive");
        let mut names: Vec<String> = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().expect("an archive") {
            names.push(entry.expect("whole").path().expect("a path").to_string_lossy().into_owned());
        }
        for notice in [CRATES, STANDARD_LIBRARY, "licenses/libc6", "licenses/libc6-dev", "licenses/libgcc-s1"] {
            assert!(names.iter().any(|name| name == notice), "{notice} is among {names:?}");
        }
    }

    #[test]
    fn a_file_of_no_package_is_refused() {
        let own = std::env::current_exe().expect("this test");
        let said = format!("{:#}", package_of(&own).expect_err("no package has it"));
        assert!(said.contains("nobody knows its licence"), "{said}");
    }

    #[test]
    fn a_crate_without_any_text_is_refused() {
        let part = Crate {
            name: "secret".to_owned(),
            version: "1.0.0".to_owned(),
            licence: "LicenseRef-Own".to_owned(),
            authors: Vec::new(),
            repository: None,
            texts: Vec::new(),
        };
        let said = format!("{:#}", told(&[part]).expect_err("no text"));
        assert!(said.contains("secret 1.0.0") && said.contains("LicenseRef-Own"), "{said}");
    }

    #[test]
    fn crates_of_one_repository_are_known_by_it() {
        let one = "https://github.com/tokio-rs/tracing";
        for url in ["https://github.com/tokio-rs/tracing.git", "https://github.com/tokio-rs/tracing/tree/master/core"] {
            assert_eq!(repository(url), one);
        }
    }
}
