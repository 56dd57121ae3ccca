//! `calicoctl config --raw`: settings by the names that the programs themselves give them, which v3 keeps as fields of
//! FelixConfiguration and BGPConfiguration.

use anyhow::{Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use tortie_api::{
    BgpConfiguration, FelixConfiguration, FelixConfigurationSpec, FelixParameter, Kind, Metadata, Resource,
};
use tortie_facts::Key;
use tortie_store::{Reader, Store, resource as stored};

use super::config::object_name;
use crate::cli::Raw;
use crate::settings::hint;

/// Old names of BGP's settings, and the fields that they are now.
const BGP: [(&str, &str); 7] = [
    ("as_num", "asNumber"),
    ("AsNumber", "asNumber"),
    ("node_mesh", "nodeToNodeMeshEnabled"),
    ("NodeMeshEnabled", "nodeToNodeMeshEnabled"),
    ("loglevel", "logSeverityScreen"),
    ("LogLevel", "logSeverityScreen"),
    ("listen_port", "listenPort"),
];

/// A field of one of the two kinds.
#[derive(Clone, Copy)]
enum Field {
    Felix(&'static FelixParameter),
    Bgp(&'static str),
}

impl Field {
    fn find(program: Raw, word: &str) -> Result<Field> {
        let names: Vec<&str> = match program {
            Raw::Felix => {
                let known = FelixConfigurationSpec::PARAMETERS.iter().filter(|parameter| !parameter.name.is_empty());
                let found = known.clone().find(|parameter| {
                    [parameter.name, parameter.json].iter().any(|name| name.eq_ignore_ascii_case(word))
                });
                if let Some(parameter) = found {
                    return Ok(Field::Felix(parameter));
                }
                known.map(|parameter| parameter.name).collect()
            }
            Raw::Bgp => {
                let found = BGP.iter().find(|(old, new)| [old, new].iter().any(|name| name.eq_ignore_ascii_case(word)));
                if let Some((_, field)) = found {
                    return Ok(Field::Bgp(field));
                }
                BGP.iter().map(|(old, _)| *old).collect()
            }
        };
        let near = hint(word, names);
        match program {
            Raw::Felix => bail!("unrecognised parameter of Felix '{word}'{near}"),
            Raw::Bgp => bail!(
                "unrecognised setting of BGP '{word}': expected as_num, node_mesh, loglevel or listen_port{near}; \
                 calicoctl patch bgpconfiguration sets the others"
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Field::Felix(parameter) => parameter.json,
            Field::Bgp(name) => name,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Field::Felix(_) => Kind::FelixConfiguration,
            Field::Bgp(_) => Kind::BgpConfiguration,
        }
    }

    /// The field's value from text.
    fn read(self, text: &str) -> Result<Json> {
        match self {
            Field::Felix(parameter) => parameter.read(text).map_err(|problem| anyhow!("{text:?}: {problem}")),
            Field::Bgp("nodeToNodeMeshEnabled") => match text.replace(char::is_whitespace, "").as_str() {
                "true" | "on" | "{\"enabled\":true}" => Ok(json!(true)),
                "false" | "off" | "{\"enabled\":false}" => Ok(json!(false)),
                _ => bail!("{text:?}: expected on or off"),
            },
            Field::Bgp("listenPort") => {
                text.parse::<u16>().map(|port| json!(port)).map_err(|_| anyhow!("{text:?}: expected a TCP port"))
            }
            Field::Bgp(_) => Ok(json!(text)),
        }
    }
}

/// A specification with a field set, or taken away.
fn changed<S: Serialize + DeserializeOwned>(spec: &S, field: Field, value: Option<&Json>) -> Result<S> {
    let mut spec = serde_json::to_value(spec)?;
    match value {
        Some(value) => spec[field.name()] = value.clone(),
        None => drop(spec.as_object_mut().and_then(|fields| fields.remove(field.name()))),
    }
    Ok(serde_json::from_value(spec)?)
}

/// The resource with a field set, or taken away; refused as a whole if it would not be valid.
fn with(found: Option<&Resource>, key: &Key, field: Field, value: Option<&Json>) -> Result<Resource> {
    let Key::Resource { kind: _, namespace: _, name } = key else { bail!("{key} is no resource") };
    let mut made = match (field, found) {
        (Field::Felix(_), found) => {
            let mut config = match found {
                Some(Resource::FelixConfiguration(config)) => (**config).clone(),
                _ => FelixConfiguration { metadata: Metadata::named(name.as_str()), ..FelixConfiguration::default() },
            };
            config.spec = changed(&config.spec, field, value)?;
            Resource::from(config)
        }
        (Field::Bgp(_), found) => {
            let mut config = match found {
                Some(Resource::BgpConfiguration(config)) => (**config).clone(),
                _ => BgpConfiguration { metadata: Metadata::named(name.as_str()), ..BgpConfiguration::default() },
            };
            config.spec = changed(&config.spec, field, value)?;
            Resource::from(config)
        }
    };
    made.apply_defaults();
    made.validate()
        .map_err(|findings| anyhow!("{}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    Ok(made)
}

/// Sets a setting, or takes it back. `open`: the store, which is opened once the name and the value are known to be good.
pub(super) fn set(
    open: impl FnOnce() -> Result<std::sync::Arc<dyn Store>>,
    (program, name): (Raw, &str),
    node: Option<&str>,
    text: Option<&str>,
) -> Result<()> {
    let field = Field::find(program, name)?;
    let value = text.map(|text| field.read(text)).transpose()?;
    let key = Key::resource(field.kind(), "", &object_name(node));
    with(None, &key, field, value.as_ref())?;
    let store = open()?;
    // What other fields make of it is known only with them.
    let found = Reader::get(&*store, &key)?;
    with(found.as_ref().and_then(|entry| entry.value.as_resource()).map(|one| &**one), &key, field, value.as_ref())?;
    let mut fault = None;
    stored::update(&*store, &key, |found| {
        let made = with(found, &key, field, value.as_ref()).or_else(|error| {
            fault = Some(error);
            // Somebody else has just changed it: it stays as it is.
            found.cloned().map_or_else(|| with(None, &key, field, value.as_ref()), Ok)
        });
        made.expect("nothing but the setting is valid, as was seen before")
    })?;
    fault.map_or(Ok(()), Err)
}

/// What a setting is: that of the node or of the cluster, nothing if none says so.
pub(super) fn get(store: &dyn Store, (program, name): (Raw, &str), node: Option<&str>) -> Result<String> {
    let field = Field::find(program, name)?;
    let entry = Reader::get(store, &Key::resource(field.kind(), "", &object_name(node)))?;
    let spec = match entry.as_ref().and_then(|entry| entry.value.as_resource()).map(|one| &**one) {
        Some(Resource::FelixConfiguration(config)) => serde_json::to_value(&config.spec)?,
        Some(Resource::BgpConfiguration(config)) => serde_json::to_value(&config.spec)?,
        _ => Json::Null,
    };
    Ok(match &spec[field.name()] {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    })
}
