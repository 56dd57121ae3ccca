//! Figures of the binary itself: its size, how fast it says its version, how long the demo takes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tortie_store::Store;
use tortie_store_sqlite::{Options, SqliteStore};

use crate::Setting;
use crate::bed::Bed;
use crate::node::names;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario;

/// The size of the binary under test.
pub fn size(setting: &Setting) -> Result<Vec<Finding>> {
    let bytes = std::fs::metadata(&setting.binary)?.len();
    let size = Samples::from(bytes as f64 / f64::from(1 << 20));
    Ok(Finding::alone("release binary, stripped", "MiB", Stat::P50, Target::AtMost(30.0), &size).into_iter().collect())
}

/// `calicoctl version` and `/bin/true` in turns.
pub fn version(setting: &Setting) -> Result<Vec<Finding>> {
    let bed = Bed::new()?;
    let calicoctl = names(&bed, setting)?.join("calicoctl");
    let database = bed.path("tortie.db");
    // What a node writes at its first start.
    let cluster = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "ClusterInformation", "metadata": { "name": "default" },
        "spec": { "clusterGUID": "00000000000000000000000000000001", "clusterType": "bgp", "calicoVersion": "v0", "datastoreReady": true },
    });
    SqliteStore::open(Options::at(&database))?.write_one(scenario::write(&cluster)?)?;
    let (mut ours, mut client, mut floor) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..setting.times(200) {
        ours.push_ms(whole(Command::new(&calicoctl).arg("version").env("TORTIE_SQLITE", &database))?);
        client.push_ms(whole(Command::new(&calicoctl).args(["version", "--client"]))?);
        floor.push_ms(whole(&mut Command::new("/bin/true"))?);
    }
    let find = |name: &str, target, seen: &Samples| {
        Finding::beside(name, "ms", Stat::P50, target, seen, ("/bin/true", &floor))
    };
    Ok([
        find("calicoctl version", Target::AtMost(5.0), &ours),
        find("calicoctl version --client", Target::None, &client),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// The demo.
pub fn demo(setting: &Setting) -> Result<Vec<Finding>> {
    let mut took = Samples::default();
    for _ in 0..if setting.quick { 1 } else { 3 } {
        took.push(whole(Command::new(&setting.binary).arg("demo"))?.as_secs_f64());
    }
    let found = Finding::alone("demo, whole process", "s", Stat::P50, Target::AtMost(10.0), &took);
    Ok(found.into_iter().collect())
}

/// The time of a whole process, which must succeed.
fn whole(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let took = begun.elapsed();
    let output = output.with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(took)
}
