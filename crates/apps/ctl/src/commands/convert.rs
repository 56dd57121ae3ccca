//! `calicoctl convert`: resources of v1 in their new form.

use anyhow::{Result, anyhow, bail};
use tortie_api::FieldError;

use crate::cli::ConvertFormat;
use crate::files::{self, Loaded, Sources};
use crate::print::{self, Format, Found};
use crate::session::Session;

pub(crate) fn convert(
    session: &mut Session<'_, '_>,
    filename: &str,
    format: ConvertFormat,
    ignore_validation: bool,
) -> Result<()> {
    let names = [filename.to_owned()];
    let sources = Sources { names: &names, recursive: false, skip_empty: false, checked: false };
    let Loaded { resources, old: _, notes } = files::load(sources, session.io.stdin)?;
    if !ignore_validation {
        let mut faults = Vec::new();
        for resource in &resources {
            let mut complete = resource.clone();
            complete.apply_defaults();
            let errors = complete.validate().err().into_iter().flatten();
            let name = &resource.metadata().name;
            faults.extend(errors.map(|error: FieldError| anyhow!("{}({name}): {error}", resource.kind()).to_string()));
        }
        if !faults.is_empty() {
            bail!(
                "Converted manifest resource(s) failed validation: {}\nRe-run the command with '--ignore-validation' \
                 flag to see the converted output.",
                faults.join("\n")
            );
        }
    }
    notes.iter().for_each(|note| session.notice(note));
    let format = match format {
        ConvertFormat::Yaml => Format::Yaml,
        ConvertFormat::Json => Format::Json,
    };
    let found: Vec<Found> = resources.into_iter().map(Found::One).collect();
    let text = print::render(&format, &found, false, &String::new)?;
    session.say(&text)
}
