//! Runs every file of `tests/scenarios`: resources in steps, the printed tables expected after each.
//!
//! Each file is also run with its history changed (one flush, a flush an update, repeats, backwards, squashed), because
//! the tables must depend on the facts alone. `TORTIE_BLESS=1` rewrites the expectations.

mod scenario;

use std::path::{Path, PathBuf};

use scenario::{Scenario, run};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(folder).expect("the folder of scenarios");
    let mut out: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    out.retain(|path| path.extension().is_some_and(|ext| ext == "txt"));
    out.sort();
    out
}

#[test]
fn every_scenario_holds_however_its_facts_arrive() {
    let bless = std::env::var_os("TORTIE_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files() {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let scenario = Scenario::parse(&name, &text);
        let blessed = scenario.print(&run::in_steps(&scenario));
        if bless {
            std::fs::write(&path, &blessed).expect("a writable file");
        } else if blessed != text {
            let difference = similar_asserts::SimpleDiff::from_str(&text, &blessed, "expected", "found");
            wrong.push(format!("{name}:\n{difference}"));
            continue;
        }
        let scenario = Scenario::parse(&name, &blessed);
        wrong.extend(run::with_other_histories(&scenario).into_iter().map(|found| format!("{name}: {found}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_scenario_goes_missing() {
    assert!(files().len() >= 25, "{} left", files().len());
}
