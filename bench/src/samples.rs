//! Measured values and what is said of them.

use std::time::Duration;

use serde::Serialize;

/// Values of one measurement, in the unit that its finding names.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

/// What is said of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many there are.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Samples {
    /// Adds a value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in milliseconds.
    pub fn push_ms(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e3);
    }

    /// Adds another measurement's values.
    pub fn extend(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The summary; `None` of nothing.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Summary { n: sorted.len(), min, p50: percentile(&sorted, 50.0), p99: percentile(&sorted, 99.0), max })
    }
}

impl From<f64> for Samples {
    fn from(value: f64) -> Samples {
        Samples(vec![value])
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Samples {
        Samples(values.into_iter().collect())
    }
}

/// A percentile of sorted, non-empty values, between neighbours by straight line.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * percent / 100.0;
    let low = at as usize;
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let samples: Samples = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        let summary = samples.summary().expect("four values");
        assert_eq!((summary.n, summary.min, summary.p50, summary.max), (4, 1.0, 2.5, 4.0));
        assert!((summary.p99 - 3.97).abs() < 1e-9);
        assert_eq!(Samples::default().summary(), None);
        assert_eq!(Samples::from(7.0).summary().map(|s| (s.min, s.p99)), Some((7.0, 7.0)));
    }
}
