//! The text of a Felix parameter, as environment variables and `calicoctl config set --raw` have it, as its field's JSON.

use serde_json::{Value, json};

use crate::check::Findings;
use crate::kinds::felix_checks;
use crate::kinds::felix_configuration::{FelixConfigurationSpec, FelixParameter};
use crate::path::Path;

impl FelixParameter {
    /// The JSON of the field from a parameter's text, or what was expected. Text has no type, but the field has: every
    /// reading of the text that makes sense is tried, and the first that the field takes is used.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let mut readings = vec![];
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "t" | "y" | "1" => readings.push(json!(true)),
            "false" | "no" | "f" | "n" | "0" => readings.push(json!(false)),
            _ => {}
        }
        readings.extend(text.parse::<i64>().ok().map(|n| json!(n)));
        // Durations are written as plain numbers, in milliseconds where the name says so.
        let unit = if self.name.ends_with("Millis") { "ms" } else { "s" };
        readings.extend(text.parse::<f64>().ok().map(|_| json!(format!("{text}{unit}"))));
        readings.push(json!(text));
        readings.push(json!(capitalised(text)));
        readings.push(json!(text.split(',').map(str::trim).collect::<Vec<_>>()));
        let mut problem = String::new();
        for reading in readings {
            match accepted(self, &reading) {
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
        let default = if self.default.is_empty() { "unset" } else { self.default };
        Err(format!("the parameter {} does not take that (its default is {default}): {problem}", self.name))
    }
}

fn accepted(parameter: &FelixParameter, reading: &Value) -> Result<(), String> {
    let name = parameter.json;
    let spec: FelixConfigurationSpec =
        serde_json::from_value(json!({ name: reading })).map_err(|error| error.to_string())?;
    let mut findings = Findings::default();
    felix_checks::values(&spec, &Path::root("spec"), &mut findings);
    findings.into_result().map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn capitalised(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut chars = lower.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
