//! `FELIX_*` variables as a FelixConfiguration.
//!
//! A variable's text has no type; the field that it sets has ([`tortie_api::FelixParameter::read`]).

use std::collections::BTreeMap;

use serde_json::json;
use tortie_api::FelixConfigurationSpec;

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
        match parameter.read(value.trim()) {
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
