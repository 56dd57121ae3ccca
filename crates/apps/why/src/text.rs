//! The answer as text: the verdict first, then each node with all that it tried, then what to do.

use std::fmt::{self, Write as _};

use crate::report::{
    ChangeReport, ConditionReport, DirectionReport, End, HopReport, ListReport, Nearest, Report, RuleReport,
};

/// The report for people. Rules that were not tried are shown only if `all` is set.
pub(crate) fn render(report: &Report, all: bool) -> String {
    let mut out = String::new();
    write(&mut out, report, all).expect("writing to a string never fails");
    out
}

fn verdict(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

fn write(out: &mut String, report: &Report, all: bool) -> fmt::Result {
    let Report { allowed, allowed_if_staged, source, destination, protocol, port, hops, nearest, change, notes } =
        report;
    let port = port.map_or_else(String::new, |port| format!(" port {port}"));
    writeln!(out, "{}: {} -> {}, {protocol}{port}", verdict(*allowed).to_uppercase(), source.name, destination.name)?;
    for (word, end) in [("from", source), ("to  ", destination)] {
        let End { name: _, kind, address, node, labels } = end;
        write!(out, "  {word} {address} ({kind}")?;
        node.iter().try_for_each(|node| write!(out, " on {node}"))?;
        labels.iter().try_for_each(|labels| write!(out, ", {labels}"))?;
        writeln!(out, ")")?;
    }
    if let Some(staged) = allowed_if_staged {
        writeln!(out, "  with staged policies enforced: {}", verdict(*staged))?;
    }
    for hop in hops {
        write_hop(out, hop, all)?;
    }
    if let Some(Nearest { rule, conditions, failing }) = nearest {
        writeln!(out, "\nNearest: {rule}; {} of its {conditions} conditions fail:", failing.len())?;
        failing.iter().try_for_each(|one| write_condition(out, "  ", one))?;
    }
    match change {
        Some(ChangeReport { steps, resources: _, then_allowed }) => {
            writeln!(out, "\nSmallest change after which it is {} (tried on the tables):", verdict(*then_allowed))?;
            steps.iter().try_for_each(|step| writeln!(out, "  {step}"))?;
        }
        None => writeln!(out, "\nNo change of policy was found that turns this.")?,
    }
    notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
}

fn write_hop(out: &mut String, hop: &HopReport, all: bool) -> fmt::Result {
    let HopReport { node, from, to, allowed, steps, directions } = hop;
    writeln!(out, "\nNode {node}, from {from} to {to}: {}", verdict(*allowed))?;
    for one in directions {
        write_direction(out, one, all)?;
    }
    if let Some(last) = steps.last() {
        writeln!(out, "  decided: {last}")?;
    }
    Ok(())
}

fn write_direction(out: &mut String, one: &DirectionReport, all: bool) -> fmt::Result {
    let DirectionReport { endpoint, stage, direction, allowed, default, selected_by, lists } = one;
    match stage {
        None => writeln!(out, "  {direction} of {endpoint}: {}", verdict(*allowed))?,
        Some(stage) => writeln!(out, "  {stage} {direction} of host endpoint {endpoint}: {}", verdict(*allowed))?,
    }
    let selected = if selected_by.is_empty() { "no policy".to_owned() } else { selected_by.join(", ") };
    writeln!(out, "    selected by {selected}")?;
    writeln!(out, "    {default}")?;
    for list in lists {
        write_list(out, list, all)?;
    }
    Ok(())
}

fn write_list(out: &mut String, list: &ListReport, all: bool) -> fmt::Result {
    let ListReport { tier, name, reached, rules, end_of_tier } = list;
    let tier = tier.as_ref().map_or_else(String::new, |tier| format!("tier {tier}: "));
    let reached = if *reached { "" } else { " (not reached)" };
    writeln!(out, "    {tier}{name}{reached}")?;
    for rule in rules.iter().filter(|rule| all || rule.tried) {
        let RuleReport { index, action, tried, matches, conditions } = rule;
        let word = match (tried, matches) {
            (true, true) => "matches",
            (true, false) => "does not match",
            (false, _) => "not tried",
        };
        writeln!(out, "      rule {index} {action}: {word}")?;
        conditions.iter().try_for_each(|one| write_condition(out, "        ", one))?;
    }
    if let Some((action, true)) = end_of_tier {
        writeln!(out, "    {tier}end: {action}")?;
    }
    Ok(())
}

fn write_condition(out: &mut String, indent: &str, one: &ConditionReport) -> fmt::Result {
    let ConditionReport { holds, demand, found } = one;
    writeln!(out, "{indent}{} {demand} ({found})", if *holds { "yes" } else { "NO " })
}
