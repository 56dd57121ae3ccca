//! What a benchmark found: figures, their floor or peer, ratio, target, and whether it is met.

use std::fmt;

use serde::Serialize;

use crate::conditions::Conditions;
use crate::samples::{Samples, Summary};

/// Which number of a summary a target is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stat {
    /// The median.
    P50,
    /// The 99th percentile.
    P99,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// At most this, in the finding's unit.
    AtMost(f64),
    /// At least this, in the finding's unit.
    AtLeast(f64),
    /// At most this many times the floor or peer.
    RatioAtMost(f64),
    /// At least this many times the floor or peer.
    RatioAtLeast(f64),
    /// Nothing: shown beside the others.
    None,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was measured.
    pub figure: String,
    /// Its unit.
    pub unit: &'static str,
    /// Which number the target is about.
    pub stat: Stat,
    /// The target.
    pub target: Target,
    /// What was seen.
    pub seen: Summary,
    /// Name and values of the floor or peer of the same run.
    pub beside: Option<(&'static str, Summary)>,
    /// That number of `seen`, by that of the floor or peer.
    pub ratio: Option<f64>,
    /// Whether the target is met; `None` without a target.
    pub met: Option<bool>,
}

impl Finding {
    /// A figure without a floor or peer. `None` when nothing was measured.
    pub fn alone(
        figure: impl Into<String>,
        unit: &'static str,
        stat: Stat,
        target: Target,
        seen: &Samples,
    ) -> Option<Finding> {
        Finding::new(figure.into(), unit, stat, target, seen, None)
    }

    /// A figure beside its floor or peer. `None` when either was not measured.
    pub fn beside(
        figure: impl Into<String>,
        unit: &'static str,
        stat: Stat,
        target: Target,
        seen: &Samples,
        peer: (&'static str, &Samples),
    ) -> Option<Finding> {
        let summary = peer.1.summary()?;
        Finding::new(figure.into(), unit, stat, target, seen, Some((peer.0, summary)))
    }

    fn new(
        figure: String,
        unit: &'static str,
        stat: Stat,
        target: Target,
        seen: &Samples,
        beside: Option<(&'static str, Summary)>,
    ) -> Option<Finding> {
        let seen = seen.summary()?;
        let pick = |summary: &Summary| match stat {
            Stat::P50 => summary.p50,
            Stat::P99 => summary.p99,
        };
        let value = pick(&seen);
        let ratio = beside.as_ref().map(|(_, peer)| value / pick(peer));
        let met = match target {
            Target::AtMost(most) => Some(value <= most),
            Target::AtLeast(least) => Some(value >= least),
            Target::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Target::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Target::None => None,
        };
        Some(Finding { figure, unit, stat, target, seen, beside, ratio, met })
    }
}

/// One run of one benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The benchmark's name.
    pub name: &'static str,
    /// Whether only a part of the work was done: then the figures say nothing.
    pub quick: bool,
    /// The conditions at its start.
    pub conditions: Conditions,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no target was missed.
    pub fn met(&self) -> bool {
        self.findings.iter().all(|finding| finding.met != Some(false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { name, quick, conditions, findings } = self;
        let part = if *quick { " (a part of the work only)" } else { "" };
        writeln!(f, "{name}{part}: {conditions}")?;
        for finding in findings {
            writeln!(f, "  {finding}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { figure, unit, stat, target, seen, beside, ratio, met } = self;
        write!(f, "{figure}: {}", shown(seen, unit))?;
        if let Some((name, peer)) = beside {
            write!(f, "; {name}: {}", shown(peer, unit))?;
        }
        if let Some(ratio) = ratio {
            write!(f, "; ratio of {} {ratio:.2}", of(*stat))?;
        }
        let asked = match target {
            Target::AtMost(most) => format!("at most {most} {unit}"),
            Target::AtLeast(least) => format!("at least {least} {unit}"),
            Target::RatioAtMost(most) => format!("ratio at most {most}"),
            Target::RatioAtLeast(least) => format!("ratio at least {least}"),
            Target::None => return Ok(()),
        };
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        write!(f, "; target {asked}: {verdict}")
    }
}

fn of(stat: Stat) -> &'static str {
    match stat {
        Stat::P50 => "medians",
        Stat::P99 => "p99s",
    }
}

fn shown(summary: &Summary, unit: &str) -> String {
    let Summary { n, min, p50, p99, max } = summary;
    if *n == 1 {
        return format!("{p50:.2} {unit}");
    }
    format!("min/median/p99/max {min:.2}/{p50:.2}/{p99:.2}/{max:.2} {unit} (n={n})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_missed_by_its_own_number() {
        let (ours, theirs): (Samples, Samples) =
            ([1.0, 2.0, 90.0].into_iter().collect(), [3.0, 4.0, 5.0].into_iter().collect());
        let find = |stat, target| Finding::beside("x", "ms", stat, target, &ours, ("y", &theirs)).expect("measured");
        assert_eq!(find(Stat::P50, Target::RatioAtMost(0.5)).met, Some(true));
        assert_eq!(find(Stat::P50, Target::RatioAtMost(0.49)).met, Some(false));
        assert_eq!(find(Stat::P99, Target::AtMost(50.0)).met, Some(false));
        assert_eq!(find(Stat::P50, Target::None).met, None);
        assert!(find(Stat::P99, Target::AtMost(50.0)).to_string().ends_with("target at most 50 ms: MISSED"));
        assert!(Finding::alone("x", "ms", Stat::P50, Target::None, &Samples::default()).is_none());
    }
}
