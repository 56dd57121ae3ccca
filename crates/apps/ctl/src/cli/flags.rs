//! Flags that are on or off, with upstream's forms: `--flag`, `--flag=true`, `--flag=false`.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

/// The words of Go's ParseBool, for off and on.
const WORDS: [[&str; 6]; 2] = [["0", "f", "F", "false", "False", "FALSE"], ["1", "t", "T", "true", "True", "TRUE"]];

/// A truth value as upstream's flags take it.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    let at = WORDS.iter().position(|words| words.contains(&text));
    at.map(|at| at == 1).ok_or_else(|| "expected true or false".to_owned())
}

/// Lets every flag of a command, and of those below it, take a truth value too.
pub(super) fn with_values(command: Command) -> Command {
    let flag = |arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .value_name("BOOL")
            .value_parser(ValueParser::new(truth)),
        _ => arg,
    };
    command.mut_args(flag).mut_subcommands(with_values)
}

#[cfg(test)]
mod tests {
    use clap::{ArgMatches, CommandFactory};

    use super::*;
    use crate::cli::Cli;

    /// Command lines that are complete but for these flags.
    const LINES: [(&str, &[&str]); 21] = [
        ("create -f x", &["--skip-exists", "--recursive", "-R", "--skip-empty", "--allow-version-mismatch"]),
        ("apply -f x", &["--recursive", "-R", "--skip-empty"]),
        ("replace -f x", &["--recursive", "-R", "--skip-empty"]),
        ("validate -f x", &["--recursive", "-R", "--skip-empty"]),
        ("delete -f x", &["--recursive", "-R", "--skip-empty", "--skip-not-exists", "-s"]),
        ("get -f x", &["--recursive", "-R", "--skip-empty", "--all-namespaces", "-A", "-a", "--export"]),
        ("label node n a=b", &["--overwrite"]),
        ("label node n a", &["--remove"]),
        ("convert -f x", &["--ignore-validation"]),
        ("version", &["--client"]),
        ("ipam show", &["--show-blocks", "--show-borrowed", "--show-configuration"]),
        ("ipam check", &["--show-all-ips", "--show-problem-ips"]),
        ("ipam release --ip 10.0.0.1", &["--force"]),
        ("node run", &["--dryrun", "--init-system", "--no-default-ippools"]),
        ("datastore migrate export", &["--complete"]),
        ("cluster diags", &["--skip-temp-dir-cleanup"]),
        ("--allow-version-mismatch=false get node", &["--export"]),
        ("get node n", &["--export"]),
        ("get -Af x", &[]),
        ("apply -Rf x", &[]),
        ("ipam configure --strictaffinity=True", &[]),
    ];

    fn parse(line: &str) -> Result<ArgMatches, clap::Error> {
        with_values(Cli::command()).try_get_matches_from(["calicoctl"].into_iter().chain(line.split(' ')))
    }

    /// The names of flags in a command and those below it, each with the long name of its flag.
    fn flags(command: &Command, into: &mut Vec<(String, String)>) {
        for arg in command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue)) {
            let long = arg.get_long().expect("every flag has a long name");
            let shorts = arg.get_short_and_visible_aliases().unwrap_or_default();
            into.push((arg.get_id().to_string(), format!("--{long}")));
            into.extend(shorts.iter().map(|short| (arg.get_id().to_string(), format!("-{short}"))));
        }
        command.get_subcommands().for_each(|below| flags(below, into));
    }

    fn value(matches: &ArgMatches, id: &str) -> Option<bool> {
        match matches.subcommand() {
            Some((_, below)) if !below.ids().any(|known| known == id) => value(below, id),
            Some((_, below)) => below.get_one(id).copied(),
            None => None,
        }
    }

    #[test]
    fn every_flag_takes_gos_truth_values() {
        let mut known = Vec::new();
        flags(&Cli::command(), &mut known);
        known.push(("all_namespaces".to_owned(), "-a".to_owned()));
        for (_, flag) in &known {
            assert!(LINES.iter().any(|(_, flags)| flags.contains(&flag.as_str())), "no line tries {flag}");
        }
        // A flag of every command may stand before the command.
        let before = parse("--allow-version-mismatch get node").expect("good");
        assert_eq!(value(&before, "allow_version_mismatch"), Some(true));
        for (line, flags) in LINES {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            for flag in flags {
                let id = &known.iter().find(|(_, name)| name == flag).expect("a flag").0;
                let read = |end: &str| {
                    let line = format!("{line} {flag}{end}");
                    value(&parse(&line).unwrap_or_else(|error| panic!("{line}: {error}")), id)
                };
                assert_eq!(read(""), Some(true), "{line} {flag}");
                for (truth, words) in [false, true].into_iter().zip(WORDS) {
                    for word in words {
                        assert_eq!(read(&format!("={word}")), Some(truth), "{line} {flag}={word}");
                    }
                }
                let error = parse(&format!("{line} {flag}=maybe")).expect_err("no truth value").to_string();
                assert!(error.contains("expected true or false"), "{error}");
            }
        }
    }
}
