//! Programs that a test can do without by skipping itself.

use std::process::Command;

/// Whether all of these are installed; a test that goes without says which one it lacks.
pub fn installed(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| Command::new(program).arg("--version").output().is_err());
    if let Some(program) = missing {
        println!("skipped: {program} is not installed");
    }
    missing.is_none()
}
