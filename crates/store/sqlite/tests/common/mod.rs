//! Children of a test: the test's own binary again, running one test in a role given by the environment.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tortie_facts::{Key, Value};

/// Names the role of a child; the path of the store is in `TORTIE_SQLITE`.
const ROLE: &str = "TORTIE_TEST_ROLE";

/// The role of this process, if it is a child.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The file of this binary.
pub fn this_binary() -> PathBuf {
    std::env::current_exe().expect("this test has a file")
}

/// A command that runs one test of this binary, or of a copy, in a role.
pub fn child(binary: &Path, test: &str, role: &str, path: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture", "--include-ignored"]);
    command.env(ROLE, role).env("TORTIE_SQLITE", path);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A handle's key.
pub fn handle(name: &str) -> Key {
    Key::Handle(name.to_owned())
}

/// A value that holds a number.
pub fn number(n: u32) -> Value {
    let text = format!(r#"{{"block":{{"10.0.0.0/26":{n}}},"deleted":false}}"#);
    Value::from_json(&handle("any"), &text).expect("the text of a handle")
}
