//! The reports that upstream's Felix writes into etcd: the node is alive (which ends by itself when the node does not
//! say so again), and when it last was.
//!
//! Only on etcd: upstream reports nothing elsewhere, and a file needs no writes by a clock.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::json;
use tortie_api::{FelixConfigurationSpec, Timestamp};
use tortie_facts::{Key, Value};
use tortie_store::{Expect, Store, Write, WriteError};
use tracing::warn;

/// A node that ends again and again soon after its start does not look alive.
const FIRST: Duration = Duration::from_secs(10);

/// Starts to report, unless `reportingInterval` is zero.
pub fn start(store: Arc<dyn Store>, node: &str, felix: &FelixConfigurationSpec) -> Result<()> {
    let interval = felix.reporting_interval.map_or(Duration::from_secs(30), |interval| interval.as_std());
    if interval.is_zero() {
        return Ok(());
    }
    store.expire_reports_after(felix.reporting_ttl.map_or(Duration::from_secs(90), |ttl| ttl.as_std()));
    let (node, region) = (node.to_owned(), region(felix));
    let began = Instant::now();
    let report = move || {
        std::thread::sleep(FIRST.min(interval));
        let mut first = true;
        loop {
            match write(&*store, &region, &node, began.elapsed(), first) {
                Ok(()) => first = false,
                Err(error) => warn!(%error, "the report that this node is alive could not be written"),
            }
            std::thread::sleep(interval);
        }
    };
    std::thread::Builder::new().name("reports".to_owned()).spawn(report).context("can't start a thread")?;
    Ok(())
}

/// The part of a key that says in which region of OpenStack the node is.
pub fn region(felix: &FelixConfigurationSpec) -> String {
    match felix.openstack_region.as_str() {
        "" => "no-region".to_owned(),
        region => format!("region-{region}"),
    }
}

fn write(store: &dyn Store, region: &str, node: &str, uptime: Duration, first: bool) -> Result<(), WriteError> {
    let writes = reports(region, node, SystemTime::now(), uptime, first);
    store.write_all(&writes).map(drop)
}

/// Both reports, as upstream has them.
fn reports(region: &str, node: &str, now: SystemTime, uptime: Duration, first: bool) -> [Write; 2] {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let time = Timestamp::from_unix_seconds(seconds).map(|time| time.to_string()).unwrap_or_default();
    let text = json!({ "time": time, "uptime": uptime.as_secs_f64(), "first_update": first }).to_string();
    ["status", "last_reported_status"].map(|name| Write {
        key: Key::Status(format!("v2/{region}/host/{node}/{name}")),
        expect: Expect::Any,
        value: Some(Value::Status(text.as_str().into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_upstreams_keys_and_fields() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let [alive, last] = reports("no-region", "n1", now, Duration::from_millis(1500), true);
        assert_eq!(alive.key.path(), "/calico/felix/v2/no-region/host/n1/status");
        assert_eq!(last.key.path(), "/calico/felix/v2/no-region/host/n1/last_reported_status");
        let text = alive.value.expect("a report").to_json();
        let wanted = json!({ "time": "2023-11-14T22:13:20Z", "uptime": 1.5, "first_update": true });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), wanted);
    }

    #[test]
    fn a_region_is_part_of_the_key() {
        let mut felix = FelixConfigurationSpec::default();
        assert_eq!(region(&felix), "no-region");
        felix.openstack_region = "west".to_owned();
        assert_eq!(region(&felix), "region-west");
    }
}
