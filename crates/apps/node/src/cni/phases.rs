//! How long the parts of ADD and DEL take, as histograms for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets, milliseconds.
const BOUNDS: [u64; 9] = [3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 60_000];

/// A part of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All of ADD, from the call to the answer.
    Add,
    /// What is there before: the pod's interfaces, and an earlier call for the same endpoint.
    Look,
    /// What the pod asks for.
    Asked,
    /// The endpoint that is there.
    Before,
    /// The address, with the time that it waited for others.
    Address,
    /// Of that: the block, with the endpoint of who is alone beside it.
    Block,
    /// What is still to be written then of handle and endpoint, where they are requests of their own.
    Records,
    /// The pod's device.
    Device,
    /// Until the kernel holds policy and routes.
    Policy,
    /// All of DEL.
    Del,
}

impl Phase {
    const ALL: [Phase; 10] = [
        Phase::Add,
        Phase::Look,
        Phase::Asked,
        Phase::Before,
        Phase::Address,
        Phase::Block,
        Phase::Records,
        Phase::Device,
        Phase::Policy,
        Phase::Del,
    ];

    fn name(self) -> &'static str {
        match self {
            Phase::Add => "add",
            Phase::Look => "add-look",
            Phase::Asked => "add-asked",
            Phase::Before => "add-before",
            Phase::Address => "add-address",
            Phase::Block => "add-address-block",
            Phase::Records => "add-records",
            Phase::Device => "add-device",
            Phase::Policy => "add-policy",
            Phase::Del => "del",
        }
    }
}

/// The times of all phases since the start.
#[derive(Debug, Default)]
pub struct Phases([Histogram; Phase::ALL.len()]);

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Phases {
    /// Does something and takes its time.
    pub fn time<T>(&self, phase: Phase, what: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = what();
        self.took(phase, started.elapsed());
        done
    }

    /// Something took this long.
    pub fn took(&self, phase: Phase, time: Duration) {
        let Histogram { buckets, count, nanos } = &self.0[phase as usize];
        for (bucket, _) in buckets.iter().zip(BOUNDS).filter(|(_, bound)| time <= Duration::from_millis(*bound)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        count.fetch_add(1, Ordering::Relaxed);
        nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// In the form of Prometheus.
    pub fn metrics(&self) -> String {
        let name = "tortie_cni_seconds";
        let mut text = format!("# HELP {name} Time of CNI calls and of their parts.\n# TYPE {name} histogram\n");
        for (phase, Histogram { buckets, count, nanos }) in Phase::ALL.iter().zip(&self.0) {
            let label = format!("phase=\"{}\"", phase.name());
            for (bucket, bound) in buckets.iter().zip(BOUNDS) {
                let bound = Duration::from_millis(bound).as_secs_f64();
                let value = bucket.load(Ordering::Relaxed);
                text.push_str(&format!("{name}_bucket{{{label},le=\"{bound}\"}} {value}\n"));
            }
            let all = count.load(Ordering::Relaxed);
            let sum = Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64();
            text.push_str(&format!("{name}_bucket{{{label},le=\"+Inf\"}} {all}\n"));
            text.push_str(&format!("{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {all}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_in_its_phase_and_in_every_bucket_that_holds_it() {
        let phases = Phases::default();
        assert_eq!(phases.time(Phase::Device, || 7), 7);
        phases.took(Phase::Block, Duration::from_millis(40));
        phases.took(Phase::Block, Duration::from_secs(100));
        let text = phases.metrics();
        for line in [
            "tortie_cni_seconds_bucket{phase=\"add-address-block\",le=\"0.03\"} 0",
            "tortie_cni_seconds_bucket{phase=\"add-address-block\",le=\"0.1\"} 1",
            "tortie_cni_seconds_bucket{phase=\"add-address-block\",le=\"60\"} 1",
            "tortie_cni_seconds_bucket{phase=\"add-address-block\",le=\"+Inf\"} 2",
            "tortie_cni_seconds_sum{phase=\"add-address-block\"} 100.04",
            "tortie_cni_seconds_count{phase=\"add-device\"} 1",
            "tortie_cni_seconds_count{phase=\"del\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn every_phase_has_a_place_of_its_own() {
        for (place, phase) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, place, "{phase:?}");
        }
    }
}
