//! Who can talk to whom: every place against every other.

use std::fmt;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::place::Place;
use crate::probe::{Echo, Outcome, Probe, Transport, ask_all};

/// The answers to one probe between all pairs of places.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// What carried the probe.
    pub transport: Transport,
    /// Its port; 0 for ICMP.
    pub port: u16,
    /// 4 or 6.
    pub ip_version: u8,
    /// Names of the places, in the order of rows and columns.
    pub places: Vec<String>,
    /// The answers, by sender and receiver; a place is not asked about itself.
    pub paths: Vec<Path>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// Who asked.
    pub from: String,
    /// Who was to answer.
    pub to: String,
    /// The answer.
    pub outcome: Outcome,
}

impl Matrix {
    /// Asks for all pairs at the same time. Takes as long as one probe, at most its timeout.
    pub fn measure(places: &[Place], probe: &Probe) -> Result<Matrix> {
        let _echo = Echo::start(places, std::slice::from_ref(probe))?;
        let pairs: Vec<(&Place, &Place)> =
            places.iter().flat_map(|from| places.iter().map(move |to| (from, to))).filter(|(a, b)| a != b).collect();
        let outcomes = ask_all(&pairs, probe)?;
        let path = |((from, to), outcome): (&(&Place, &Place), Outcome)| Path {
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            outcome,
        };
        Ok(Matrix {
            transport: probe.transport,
            port: probe.port,
            ip_version: probe.family.version(),
            places: places.iter().map(|place| place.name().to_owned()).collect(),
            paths: pairs.iter().zip(outcomes).map(path).collect(),
        })
    }

    /// The answer between two places; `None` for a place and itself, and for unknown names.
    pub fn outcome(&self, from: &str, to: &str) -> Option<Outcome> {
        self.paths.iter().find(|path| path.from == from && path.to == to).map(|path| path.outcome)
    }

    /// Whether packets get from one place to another and back.
    pub fn open(&self, from: &str, to: &str) -> bool {
        self.outcome(from, to) == Some(Outcome::Open)
    }

    /// How many paths are open.
    pub fn open_count(&self) -> usize {
        self.paths.iter().filter(|path| path.outcome == Outcome::Open).count()
    }

    /// The paths whose answer is not what `wanted` (sender, receiver) says.
    pub fn differences(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<&Path> {
        let differs = |path: &&Path| (path.outcome == Outcome::Open) != wanted(&path.from, &path.to);
        self.paths.iter().filter(differs).collect()
    }

    /// An error that lists every path whose answer is not what `wanted` says.
    pub fn expect(&self, wanted: impl Fn(&str, &str) -> bool) -> Result<()> {
        let differences = self.differences(wanted);
        if differences.is_empty() {
            return Ok(());
        }
        let line = |path: &&Path| {
            let other = if path.outcome == Outcome::Open { "closed" } else { "open" };
            format!("  {} -> {}: {}, expected {other}", path.from, path.to, path.outcome)
        };
        let lines: Vec<_> = differences.iter().map(line).collect();
        bail!("{} of {} paths are not as expected:\n{}\n{self}", lines.len(), self.paths.len(), lines.join("\n"))
    }
}

impl fmt::Display for Matrix {
    /// A table: senders are rows, receivers columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED);
        let corner = match self.transport {
            Transport::Icmp => format!("{}/v{}", self.transport, self.ip_version),
            Transport::Udp | Transport::Tcp => format!("{}/{}/v{}", self.transport, self.port, self.ip_version),
        };
        table.set_header(std::iter::once(corner).chain(self.places.iter().cloned()));
        for from in &self.places {
            let cell = |to: &String| self.outcome(from, to).map_or_else(|| "-".to_owned(), |o| o.to_string());
            table.add_row(std::iter::once(from.clone()).chain(self.places.iter().map(cell)));
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Matrix {
        let path = |from: &str, to: &str, outcome| Path { from: from.to_owned(), to: to.to_owned(), outcome };
        Matrix {
            transport: Transport::Udp,
            port: 9000,
            ip_version: 4,
            places: vec!["default/a".to_owned(), "node1".to_owned()],
            paths: vec![path("default/a", "node1", Outcome::Dropped), path("node1", "default/a", Outcome::Open)],
        }
    }

    #[test]
    fn a_difference_is_named_with_both_sides() {
        assert!(matrix().expect(|from, _| from == "node1").is_ok());
        let error = matrix().expect(|_, _| true).unwrap_err().to_string();
        assert!(error.contains("default/a -> node1: drop, expected open"), "{error}");
    }

    #[test]
    fn the_table_has_senders_as_rows() {
        let text = matrix().to_string();
        let row = text.lines().find(|line| line.contains("| default/a ") && line.contains("drop")).unwrap();
        assert!(row.contains("| -"), "{text}");
        assert!(text.contains("udp/9000/v4"), "{text}");
    }
}
