//! Facts for the calculator, and how it is timed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value as Json, json};
use tortie_api::Resource;
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Tables;
use tortie_facts::{Revision, Update, Value};
use tortie_store::resource::resource_key;

use super::Seen;

/// The node whose state is worked out.
pub const LOCAL: &str = "localhost";

/// A fact of a resource.
pub fn fact(kind: &str, namespace: &str, name: &str, labels: BTreeMap<String, String>, spec: Json) -> Result<Update> {
    let mut metadata = json!({ "name": name, "labels": labels });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    let object = json!({ "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec });
    let resource = Resource::from_json(&object.to_string())?;
    Ok(Update { key: resource_key(&resource), value: Some(Value::resource(resource)), revision: Revision(1) })
}

/// An endpoint's fact; the number gives its address and its names.
pub fn endpoint(
    node: &str,
    number: usize,
    namespace: &str,
    profile: &str,
    labels: BTreeMap<String, String>,
) -> Result<Update> {
    let address = Ipv4Addr::from(0x0a00_0001 + u32::try_from(number)?);
    fact(
        "WorkloadEndpoint",
        namespace,
        &format!("{node}-k8s-wep{number}-eth0"),
        labels,
        json!({
            "orchestrator": "k8s", "node": node, "pod": format!("wep{number}"), "endpoint": "eth0",
            "ipNetworks": [format!("{address}/32")], "profiles": [profile], "interfaceName": format!("cali{number:07x}"),
        }),
    )
}

/// The tier that every policy of the workloads is in.
pub fn default_tier() -> Result<Update> {
    fact("Tier", "", "default", BTreeMap::new(), json!({ "order": 1_000_000, "defaultAction": "Deny" }))
}

/// A calculator of [`LOCAL`].
pub fn calculator() -> Calculator {
    Calculator::new(LOCAL, Overrides::default())
}

/// Feeds all facts, takes the first batch, and says how long that took and what is held afterwards.
pub fn snapshot(make: impl FnOnce() -> Result<Vec<Update>>) -> Result<Seen> {
    let before = heap();
    let facts = make()?;
    let start = cpu();
    let mut calculator = calculator();
    for fact in facts {
        calculator.apply(fact);
    }
    calculator.in_sync();
    let batch = calculator.flush();
    let seconds = (cpu() - start).as_secs_f64();
    let mut tables = Tables::default();
    tables.apply(&batch);
    drop(batch);
    let made = [tables.endpoints.len(), tables.policies.len(), tables.sets.len()];
    drop(tables);
    let held = heap().saturating_sub(before);
    drop(calculator);
    Ok(Seen { seconds: vec![seconds], heap: held as f64 / f64::from(1 << 20), made })
}

/// Bytes in use on the heap, by the allocator's own count.
fn heap() -> usize {
    // SAFETY: mallinfo2 only reads the allocator's counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// The CPU time of this thread: what else the machine does is not in it.
pub fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the pointer is to a live value.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
