//! `calicoctl version`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tortie_api::{GoDuration, Kind, Resource};
use tortie_facts::Key;
use tortie_store::{Reader, Store};

use crate::VERSION;
use crate::session::Session;

/// The commit that the program was built from, if the build said so.
const COMMIT: &str = match option_env!("TORTIE_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub(crate) fn version(session: &mut Session<'_, '_>, client: bool, poll: Option<&str>) -> Result<()> {
    let interval = poll.map(parse_interval).transpose()?;
    session.say(&format!("Client Version:    {VERSION}\nGit commit:        {COMMIT}\n"))?;
    if client {
        return Ok(());
    }
    let store = match session.open() {
        Ok(store) => store,
        Err(error) if error.downcast_ref::<tortie_store::StoreError>().is_some() => {
            session.say("Unable to detect installed Calico version\n")?;
            session.warn(&format!("{error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut shown = None;
    loop {
        let found = cluster(&*store);
        if let Ok((version, kind)) = &found
            && shown.as_ref() != Some(&(version.clone(), kind.clone()))
        {
            session.say(&format!("Cluster Version:   {version}\nCluster Type:      {kind}\n"))?;
            shown = Some((version.clone(), kind.clone()));
        }
        match (interval, found) {
            (None, found) => return found.map(drop),
            (Some(interval), found) => {
                if let Err(error) = found {
                    session.warn(&format!("{error:#}"));
                    shown = None;
                }
                session.io.out.flush()?;
                sleep(interval);
            }
        }
    }
}

fn parse_interval(text: &str) -> Result<Duration> {
    match text.parse::<GoDuration>().map(GoDuration::as_std) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        Ok(_) | Err(_) => bail!("invalid poll duration specified: {text}: expected a time such as 5s"),
    }
}

fn cluster(store: &dyn Store) -> Result<(String, String)> {
    let key = Key::resource(Kind::ClusterInformation, "", "default");
    let entry = Reader::get(store, &key).context("unable to retrieve Cluster Version or Type")?;
    let Some(Resource::ClusterInformation(info)) = entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r)
    else {
        bail!("unable to retrieve Cluster Version or Type: resource does not exist: {key}");
    };
    let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    Ok((or_unknown(&info.spec.calico_version), or_unknown(&info.spec.cluster_type)))
}
