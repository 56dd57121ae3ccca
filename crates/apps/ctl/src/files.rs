//! Resources out of files, directories and standard input.
//!
//! Invariant: all of them are read and checked before any is handed on; every fault of every file is told.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tortie_api::{FieldError, Kind, Resource, manifest};
use tortie_legacy::Converted;

use crate::settings::nearest;

/// Where to read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// Files, directories, or `-`.
    pub(crate) names: &'a [String],
    /// Directories below directories too.
    pub(crate) recursive: bool,
    /// Whether a file may hold no resource.
    pub(crate) skip_empty: bool,
    /// Whether values are checked, or only fields and types.
    pub(crate) checked: bool,
}

/// What files hold.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The resources, those of v1 in their new form.
    pub(crate) resources: Vec<Resource>,
    /// Which of them were of v1, by their place.
    pub(crate) old: BTreeSet<usize>,
    /// What the conversion has to tell.
    pub(crate) notes: Vec<String>,
}

impl Loaded {
    /// Reads one text; the number of its resources.
    fn take(&mut self, shown: &str, text: &str, checked: bool) -> Result<usize, manifest::ManifestError> {
        let mut old = Vec::new();
        let resources = manifest::parse_with(shown, text, checked, &mut |value| {
            let Some(result) = tortie_legacy::convert(value) else { return misspelt(value).map(Err) };
            let keep = |Converted { resource, notes }| {
                self.notes.extend(notes);
                old.push((resource.kind(), resource.metadata().name.clone()));
                resource
            };
            Some(result.map(|all| all.into_iter().map(keep).collect()))
        })?;
        let count = resources.len();
        let mut old = old.into_iter().peekable();
        for resource in resources {
            let is_old = old.next_if(|(kind, name)| *kind == resource.kind() && *name == resource.metadata().name);
            self.old.extend(is_old.map(|_| self.resources.len()));
            self.resources.push(resource);
        }
        Ok(count)
    }
}

/// What is wrong with a kind of v1 that there is not, if it comes close to one of those, and to none of today.
fn misspelt(value: &Value) -> Option<FieldError> {
    let word = value["kind"].as_str()?;
    match Kind::from_name(word) {
        Err(unknown) if unknown.nearest.is_none() => {}
        Ok(_) | Err(_) => return None,
    }
    let near = nearest(word, tortie_legacy::KINDS)?;
    Some(FieldError {
        path: "kind".to_owned(),
        value: format!("{word:?}"),
        expected: format!("a kind of apiVersion v1: {}", tortie_legacy::KINDS.join(", ")),
        nearest: Some(near.to_owned()),
    })
}

/// Reads all resources, in the order of the files' names.
pub(crate) fn load(sources: Sources<'_>, stdin: &mut dyn Read) -> Result<Loaded> {
    let Sources { names, recursive, skip_empty, checked } = sources;
    let mut loaded = Loaded::default();
    let mut faults = Vec::new();
    for name in names {
        let before = loaded.resources.len();
        let mut take = |shown: &str, text: &str| -> Result<()> {
            match loaded.take(shown, text, checked) {
                Ok(0) if !skip_empty => bail!("no resources specified in file {shown}"),
                Ok(_) => {}
                Err(error) => faults.push(error.to_string()),
            }
            Ok(())
        };
        if name == "-" {
            let mut text = String::new();
            stdin.read_to_string(&mut text).context("can't read standard input")?;
            take("stdin", &text)?;
            continue;
        }
        let path = Path::new(name);
        if !path.is_dir() {
            take(name, &read(path)?)?;
            continue;
        }
        for file in walk(path, recursive)? {
            take(&file.display().to_string(), &read(&file)?)?;
        }
        if loaded.resources.len() == before && faults.is_empty() && !skip_empty {
            bail!("no resources specified in directory {name}");
        }
    }
    if !faults.is_empty() {
        bail!("failed to execute command: {}", faults.join("\n"));
    }
    Ok(loaded)
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("failed to execute command: open {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("failed to execute command: {}: expected UTF-8", path.display()))
}

/// The manifests of a directory, sorted. Links to directories are not followed: they may lead back here.
fn walk(directory: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let cant = || format!("can't read the directory {}", directory.display());
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(cant)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .with_context(cant)?;
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            if recursive && !path.is_symlink() {
                files.extend(walk(&path, true)?);
            }
        } else if is_manifest(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| known.eq_ignore_ascii_case(extension))
}
