//! `FELIX_*` variables as a FelixConfiguration.
//!
//! A variable's text has no type; the field that it sets has. Every reading of the text that makes sense is tried,
//! and the first that the field takes is used.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tortie_api::{FelixConfiguration, FelixConfigurationSpec, FelixParameter, Metadata, Resource};

use super::SettingError;

pub(super) fn read(vars: &BTreeMap<String, String>, faults: &mut Vec<SettingError>) -> FelixConfigurationSpec {
    let mut spec = json!({});
    for (name, value) in vars {
        let upper = name.to_ascii_uppercase();
        let Some(short) = upper.strip_prefix("FELIX_") else { continue };
        let parameter = FelixConfigurationSpec::PARAMETERS
            .iter()
            .find(|p| !p.name.is_empty() && p.name.eq_ignore_ascii_case(short));
        let (Some(parameter), false) = (parameter, value.trim().is_empty()) else { continue };
        match field(parameter, value.trim()) {
            Ok(read) => spec[parameter.json] = read,
            Err(problem) => faults.push(SettingError {
                origin: "the environment variable".to_owned(),
                name: name.clone(),
                value: value.clone(),
                problem,
            }),
        }
    }
    serde_json::from_value(spec).expect("each field was read on its own, and together they are the same")
}

/// The JSON of a field from a variable's text, or what was expected.
fn field(parameter: &FelixParameter, text: &str) -> Result<Value, String> {
    let mut readings = vec![];
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "t" | "y" | "1" => readings.push(json!(true)),
        "false" | "no" | "f" | "n" | "0" => readings.push(json!(false)),
        _ => {}
    }
    readings.extend(text.parse::<i64>().ok().map(|n| json!(n)));
    // Durations are written as plain numbers, in milliseconds where the name says so.
    let unit = if parameter.name.ends_with("Millis") { "ms" } else { "s" };
    readings.extend(text.parse::<f64>().ok().map(|_| json!(format!("{text}{unit}"))));
    readings.push(json!(text));
    readings.push(json!(capitalised(text)));
    readings.push(json!(text.split(',').map(str::trim).collect::<Vec<_>>()));
    let mut problem = String::new();
    for reading in readings {
        match accepted(parameter, &reading) {
            Ok(()) => return Ok(reading),
            Err(reason) => {
                problem = if problem.is_empty() || reason.contains("did you mean") { reason } else { problem }
            }
        }
    }
    let lower = text.to_ascii_lowercase();
    let flag = ["true", "false"].into_iter().find(|flag| strsim::damerau_levenshtein(&lower, flag) <= 2);
    if let Some(flag) = flag.filter(|_| problem.contains("expected a boolean")) {
        problem.push_str(&format!(": did you mean {flag:?}?"));
    }
    let default = if parameter.default.is_empty() { "unset" } else { parameter.default };
    Err(format!("the parameter {} does not take that (its default is {default}): {problem}", parameter.name))
}

fn accepted(parameter: &FelixParameter, reading: &Value) -> Result<(), String> {
    let name = parameter.json;
    let spec: FelixConfigurationSpec =
        serde_json::from_value(json!({ name: reading })).map_err(|error| error.to_string())?;
    let metadata = Metadata::named("default");
    let resource = Resource::from(FelixConfiguration { metadata, spec });
    resource.validate().map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn capitalised(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut chars = lower.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
