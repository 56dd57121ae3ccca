//! Times that programs of the cluster count of their own work, between two looks.

use std::collections::BTreeMap;

use anyhow::Result;

use super::cluster::kubectl;
use super::pods::node;

/// By what was done: how often, and how many seconds it took in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times(BTreeMap<String, (u64, f64)>);

impl Times {
    /// What the agent of n1 says of the parts of CNI calls.
    pub fn of_agent() -> Result<Times> {
        let metrics = node(1, &["curl", "-sf", "http://127.0.0.1:9091/metrics"])?;
        Times::read(&metrics, "tortie_cni_seconds", |labels| label(labels, "phase").map(str::to_owned))
    }

    /// What the API server says of the writes that a pod takes: ours, and Kubernetes' own.
    pub fn of_writes() -> Result<Times> {
        let metrics = kubectl(&["get", "--raw", "/metrics"])?;
        Times::read(&metrics, "apiserver_request_duration_seconds", |labels| {
            let (verb, resource) = (label(labels, "verb")?, label(labels, "resource")?);
            let what = match label(labels, "subresource")? {
                "" => format!("{verb} {resource}"),
                part => format!("{verb} {resource}/{part}"),
            };
            let of_a_pod =
                ["PUT ipamblocks", "POST ipamhandles", "PATCH pods/status", "POST pods", "POST pods/binding"];
            of_a_pod.contains(&what.as_str()).then_some(what)
        })
    }

    fn read(metrics: &str, name: &str, key: impl Fn(&str) -> Option<String>) -> Result<Times> {
        let mut times = BTreeMap::<String, (u64, f64)>::new();
        for line in metrics.lines() {
            let rest = line.strip_prefix(name).and_then(|rest| rest.split_once('{'));
            let Some((what, (labels, value))) = rest.and_then(|(what, rest)| Some((what, rest.rsplit_once("} ")?)))
            else {
                continue;
            };
            let Some(key) = key(labels) else { continue };
            match what {
                "_count" => times.entry(key).or_default().0 += value.parse::<u64>()?,
                "_sum" => times.entry(key).or_default().1 += value.parse::<f64>()?,
                _ => {}
            }
        }
        Ok(Times(times))
    }

    /// The average of each since an earlier look.
    pub fn told_since(&self, before: &Times) -> String {
        let told = self.0.iter().filter_map(|(what, (count, sum))| {
            let (earlier, taken) = before.0.get(what).copied().unwrap_or_default();
            let times = count.saturating_sub(earlier);
            (times > 0).then(|| format!("{what} {:.0} ms ({times})", (sum - taken) / times as f64 * 1000.0))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// The value of a label.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_between_two_looks_is_averaged() {
        let read = |count, sum| {
            let text = format!(
                "x_bucket{{verb=\"GET\",le=\"0.03\"}} 1\nx_sum{{verb=\"GET\"}} {sum}\nx_count{{verb=\"GET\"}} {count}\n\
                 x_count{{verb=\"PUT\"}} 2\nx_other 7\ny_count{{verb=\"GET\"}} 9\n"
            );
            Times::read(&text, "x", |labels| label(labels, "verb").map(str::to_owned)).expect("numbers")
        };
        assert_eq!(read(6, 2.5).told_since(&read(2, 1.5)), "GET 250 ms (4)");
        assert_eq!(read(2, 1.5).told_since(&Times::default()), "GET 750 ms (2), PUT 0 ms (2)");
        assert!(Times::read("x_sum{verb=\"GET\"} many\n", "x", |_| Some(String::new())).is_err());
    }
}
