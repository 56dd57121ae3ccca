//! `calicoctl config`: the settings that v1 knew by name, where v3 keeps them.
//!
//! | v1 | v3 |
//! |---|---|
//! | `logLevel` | `logSeverityScreen` of FelixConfiguration and BGPConfiguration, of `default` or `node.NAME` |
//! | `nodeToNodeMesh` | `nodeToNodeMeshEnabled` of BGPConfiguration `default` |
//! | `asNumber` | `asNumber` of BGPConfiguration `default` |
//! | `ipip` | `ipipEnabled` of FelixConfiguration `default`; without it, whether a pool uses IP-in-IP |

use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use tortie_api::{BgpConfiguration, EncapMode, FelixConfiguration, Kind, Metadata, Resource};
use tortie_facts::{Filter, Key};
use tortie_net::AsNumber;
use tortie_store::{Reader, Store, resource as stored};

use super::config_raw;
use crate::cli::{Config, SettingPlace};
use crate::session::Session;
use crate::settings::hint;
use crate::write::ensure_initialized;

/// The AS number of a cluster that names none.
const DEFAULT_AS: AsNumber = AsNumber(64512);

/// v1's levels and v3's. v3 can't be silent, so the level that says least stands for `none`.
const LEVELS: [(&str, &str); 6] = [
    ("none", "Fatal"),
    ("debug", "Debug"),
    ("info", "Info"),
    ("warning", "Warning"),
    ("error", "Error"),
    ("critical", "Fatal"),
];

const NAMES: [&str; 4] = ["logLevel", "nodeToNodeMesh", "asNumber", "ipip"];

#[derive(Clone, Copy)]
enum Setting {
    LogLevel,
    Mesh,
    AsNumber,
    Ipip,
}

impl Setting {
    fn parse(word: &str) -> Result<Setting> {
        Ok(match word.to_lowercase().as_str() {
            "loglevel" => Setting::LogLevel,
            "nodetonodemesh" => Setting::Mesh,
            "asnumber" => Setting::AsNumber,
            "ipip" => Setting::Ipip,
            _ => bail!("unrecognised config name '{word}': expected one of {}{}", NAMES.join(", "), hint(word, NAMES)),
        })
    }
}

pub(crate) fn config(session: &mut Session<'_, '_>, command: &Config) -> Result<()> {
    let done = match command {
        Config::Set { name, value, at } => set(session, name, Some(value), at),
        Config::Unset { name, at } => set(session, name, None, at),
        Config::Get { name, at } => get(session, name, at),
    };
    done.map_err(|error| error.context("Error executing command"))
}

/// The node, if one is meant and the setting can be a node's.
fn node(setting: Setting, at: &SettingPlace) -> Result<Option<&str>> {
    let SettingPlace { node, raw: _ } = at;
    match (setting, node.as_deref()) {
        (_, None) => Ok(None),
        (Setting::LogLevel, Some(node)) => Ok(Some(node)),
        (Setting::AsNumber, Some(node)) => bail!(
            "--node should not be specified: the setting is the cluster's; that of a node is set by calicoctl patch \
             node {node} -p '{{\"spec\":{{\"bgp\":{{\"asNumber\":64512}}}}}}'"
        ),
        (Setting::Mesh | Setting::Ipip, Some(_)) => {
            bail!("--node should not be specified: the setting is the cluster's")
        }
    }
}

fn set(session: &mut Session<'_, '_>, name: &str, value: Option<&String>, at: &SettingPlace) -> Result<()> {
    if let Some(program) = at.raw {
        let value = value.map(String::as_str);
        return config_raw::set(|| opened(session), (program, name), at.node.as_deref(), value);
    }
    let setting = Setting::parse(name)?;
    let node = node(setting, at)?;
    let value = value.map(String::as_str);
    match setting {
        Setting::LogLevel => {
            let level = value.map(level).transpose()?.unwrap_or_default();
            let store = opened(session)?;
            change_felix(&*store, node, |config| level.clone_into(&mut config.spec.log_severity_screen))?;
            change_bgp(&*store, node, |config| level.clone_into(&mut config.spec.log_severity_screen))
        }
        Setting::Mesh => {
            let on = value.map(switch).transpose()?;
            change_bgp(&*opened(session)?, None, |config| config.spec.node_to_node_mesh_enabled = on)
        }
        Setting::AsNumber => {
            let number = value.map(as_number).transpose()?;
            change_bgp(&*opened(session)?, None, |config| config.spec.as_number = number)
        }
        Setting::Ipip => {
            let on = value.map(switch).transpose()?;
            change_felix(&*opened(session)?, None, |config| config.spec.ipip_enabled = on)
        }
    }
}

fn opened(session: &mut Session<'_, '_>) -> Result<Arc<dyn Store>> {
    let store = session.store()?;
    ensure_initialized(&*store)?;
    Ok(store)
}

fn level(word: &str) -> Result<&'static str> {
    let known = LEVELS.iter().find(|(old, _)| old.eq_ignore_ascii_case(word));
    let names = LEVELS.map(|(old, _)| old);
    known
        .map(|(_, new)| *new)
        .ok_or_else(|| anyhow!("logLevel: {word:?}: expected one of {}{}", names.join(", "), hint(word, names)))
}

fn switch(word: &str) -> Result<bool> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("invalid value '{word}': expected on or off"),
    }
}

fn as_number(word: &str) -> Result<AsNumber> {
    word.parse()
        .map_err(|_| anyhow!("the supplied AS number is not valid: {word:?}: expected 0 to 4294967295, or HIGH.LOW"))
}

pub(super) fn object_name(node: Option<&str>) -> String {
    node.map_or("default".to_owned(), |node| format!("node.{node}"))
}

fn change_felix(store: &dyn Store, node: Option<&str>, change: impl Fn(&mut FelixConfiguration)) -> Result<()> {
    let name = object_name(node);
    stored::update(store, &Key::resource(Kind::FelixConfiguration, "", &name), |found| {
        let mut config = match found {
            Some(Resource::FelixConfiguration(config)) => (**config).clone(),
            _ => FelixConfiguration { metadata: Metadata::named(name.as_str()), ..FelixConfiguration::default() },
        };
        change(&mut config);
        config.into()
    })?;
    Ok(())
}

fn change_bgp(store: &dyn Store, node: Option<&str>, change: impl Fn(&mut BgpConfiguration)) -> Result<()> {
    let name = object_name(node);
    stored::update(store, &Key::resource(Kind::BgpConfiguration, "", &name), |found| {
        let mut config = match found {
            Some(Resource::BgpConfiguration(config)) => (**config).clone(),
            _ => BgpConfiguration { metadata: Metadata::named(name.as_str()), ..BgpConfiguration::default() },
        };
        change(&mut config);
        let mut config = Resource::from(config);
        config.apply_defaults();
        config
    })?;
    Ok(())
}

fn get(session: &mut Session<'_, '_>, name: &str, at: &SettingPlace) -> Result<()> {
    if let Some(program) = at.raw {
        let store = session.store()?;
        let text = config_raw::get(&*store, (program, name), at.node.as_deref())?;
        return session.say(&format!("{text}\n"));
    }
    let setting = Setting::parse(name)?;
    let node = node(setting, at)?;
    let store = session.store()?;
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let text = match setting {
        Setting::LogLevel => log_level(&*store, node)?,
        Setting::Mesh => on_off(bgp(&*store)?.and_then(|config| config.spec.node_to_node_mesh_enabled).unwrap_or(true)),
        Setting::AsNumber => bgp(&*store)?.and_then(|config| config.spec.as_number).unwrap_or(DEFAULT_AS).to_string(),
        Setting::Ipip => match felix(&*store, None)?.and_then(|config| config.spec.ipip_enabled) {
            Some(on) => on_off(on),
            None => on_off(a_pool_uses_ipip(&*store)?),
        },
    };
    session.say(&format!("{text}\n"))
}

fn log_level(store: &dyn Store, node: Option<&str>) -> Result<String> {
    let of = |config: Option<FelixConfiguration>| {
        let level = config.map(|config| config.spec.log_severity_screen).filter(|level| !level.is_empty())?;
        // The later of two that mean the same.
        let old = LEVELS.iter().rev().find(|(_, new)| *new == level).map(|(old, _)| (*old).to_owned());
        Some(old.unwrap_or_else(|| level.to_lowercase()))
    };
    if let Some(own) = node.map(|node| felix(store, Some(node))).transpose()?.and_then(of) {
        return Ok(own);
    }
    let cluster = of(felix(store, None)?).unwrap_or_else(|| "info".to_owned());
    Ok(if node.is_some() { format!("{cluster} (inherited from global)") } else { cluster })
}

fn read(store: &dyn Store, kind: Kind, name: &str) -> Result<Option<Arc<Resource>>> {
    let entry = Reader::get(store, &Key::resource(kind, "", name))?;
    Ok(entry.and_then(|entry| entry.value.as_resource().cloned()))
}

fn felix(store: &dyn Store, node: Option<&str>) -> Result<Option<FelixConfiguration>> {
    Ok(match read(store, Kind::FelixConfiguration, &object_name(node))?.as_deref() {
        Some(Resource::FelixConfiguration(config)) => Some((**config).clone()),
        _ => None,
    })
}

fn bgp(store: &dyn Store) -> Result<Option<BgpConfiguration>> {
    Ok(match read(store, Kind::BgpConfiguration, "default")?.as_deref() {
        Some(Resource::BgpConfiguration(config)) => Some((**config).clone()),
        _ => None,
    })
}

fn a_pool_uses_ipip(store: &dyn Store) -> Result<bool> {
    let pools = store.list(&Filter::Kind(Kind::IpPool))?.entries;
    let uses = |resource: &Resource| match resource {
        Resource::IpPool(pool) => pool.spec.ipip_mode.is_some_and(|mode| mode != EncapMode::Never),
        _ => false,
    };
    Ok(pools.iter().filter_map(|entry| entry.value.as_resource()).any(|resource| uses(resource)))
}
