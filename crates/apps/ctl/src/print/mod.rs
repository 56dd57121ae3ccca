//! Resources as tables, YAML, JSON and through templates, as upstream prints them.

mod actions;
mod boxed;
mod columns;
mod go;
mod structured;
mod tabs;
mod template;

use anyhow::{Context, Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::Key;
use tortie_store::{Reader, Store};

use crate::settings::hint;

pub(crate) use boxed::{Align, BoxTable};
pub(crate) use go::g5;
pub(crate) use structured::{ListText, Notation};

/// How to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A table with few columns.
    Narrow,
    /// A table with all usual columns.
    Wide,
    /// A table with these columns.
    Columns(Vec<String>),
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// Through a template in the language of Go.
    Template(String),
}

impl Format {
    /// How a list is written as it comes, where the format needs no sight of the whole.
    pub(crate) fn notation(&self) -> Option<Notation> {
        match self {
            Format::Yaml => Some(Notation::Yaml),
            Format::Json => Some(Notation::Json),
            Format::Narrow | Format::Wide | Format::Columns(_) | Format::Template(_) => None,
        }
    }

    /// Reads the value of `--output`; a template's file is read at once.
    pub(crate) fn parse(text: &str) -> Result<Format> {
        let (word, value) = text.split_once('=').unwrap_or((text, ""));
        Ok(match (word, value) {
            ("ps", "") => Format::Narrow,
            ("wide", "") => Format::Wide,
            ("yaml" | "yml", "") => Format::Yaml,
            ("json", "") => Format::Json,
            ("custom-columns", "") => bail!("need to specify at least one column"),
            ("custom-columns", columns) => Format::Columns(columns.split(',').map(str::to_owned).collect()),
            ("go-template", "") => bail!("need to specify a template"),
            ("go-template", template) => Format::Template(template.to_owned()),
            ("go-template-file", "") => bail!("need to specify a template file"),
            ("go-template-file", path) => Format::Template(
                std::fs::read_to_string(path).with_context(|| format!("can't read the template {path}"))?,
            ),
            _ => {
                let known = ["ps", "wide", "yaml", "json", "custom-columns", "go-template", "go-template-file"];
                bail!("unrecognized output format '{text}': expected one of {}{}", known.join(", "), hint(word, known))
            }
        })
    }
}

/// What was read for one argument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// A resource by name.
    One(Resource),
    /// All of a kind.
    List {
        /// The kind.
        kind: Kind,
        /// The resources.
        items: Vec<Resource>,
        /// The store's revision.
        revision: String,
    },
}

/// The text to print. `as_number` is asked for the cluster's AS number when a column shows it.
pub(crate) fn render(
    format: &Format,
    found: &[Found],
    with_namespace: bool,
    as_number: &dyn Fn() -> String,
) -> Result<String> {
    let table = |wanted: columns::Wanted<'_>| -> Result<String> {
        let mut text = String::new();
        for one in found {
            text.push_str(&columns::table(one, wanted, with_namespace, as_number)?);
            text.push('\n');
        }
        Ok(text)
    };
    match format {
        Format::Narrow => table(columns::Wanted::Narrow),
        Format::Wide => table(columns::Wanted::Wide),
        Format::Columns(names) => table(columns::Wanted::These(names)),
        Format::Yaml => Ok(structured::yaml(found)),
        Format::Json => Ok(structured::json(found)),
        Format::Template(text) => template::render(text, found, as_number),
    }
}

/// The cluster's AS number, as BGPConfiguration has it.
pub(crate) fn as_number(store: &dyn Store) -> String {
    match Reader::get(store, &Key::resource(Kind::BgpConfiguration, "", "default")) {
        Err(_) => "unknown".to_owned(),
        Ok(entry) => match entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r) {
            Some(Resource::BgpConfiguration(config)) => {
                config.spec.as_number.map_or_else(|| "64512".to_owned(), |number| number.to_string())
            }
            _ => "64512".to_owned(),
        },
    }
}
