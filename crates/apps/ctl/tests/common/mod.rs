//! Runs the program in this process against a store of its own.

pub mod addresses;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use tempfile::TempDir;
use tortie_ctl::{Io, run};
use tortie_store_sqlite::{Options, SqliteStore};

/// A store in a directory that goes away at the end.
pub struct Cluster {
    /// The directory.
    pub directory: TempDir,
    /// The environment.
    pub env: BTreeMap<String, OsString>,
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: u8,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Cluster {
    /// An empty store.
    pub fn new() -> Cluster {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("tortie.db").into_os_string();
        let state = directory.path().as_os_str().to_owned();
        let env = BTreeMap::from([("TORTIE_SQLITE".to_owned(), store), ("TORTIE_STATE_DIR".to_owned(), state)]);
        Cluster { directory, env }
    }

    /// The store, as another program opens it.
    #[allow(dead_code, reason = "not every test program looks into the store")]
    pub fn store(&self) -> SqliteStore {
        SqliteStore::open(Options::at(self.path("tortie.db"))).expect("the store opens")
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, with its directories; its path as text.
    #[allow(dead_code, reason = "not every test program writes files")]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the directory")).expect("made");
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Runs the program; blanks separate the arguments.
    pub fn run(&self, line: &str, stdin: &str) -> Ran {
        let args: Vec<&str> = line.split(' ').collect();
        self.run_args(&args, stdin)
    }

    /// Runs the program.
    pub fn run_args(&self, args: &[&str], stdin: &str) -> Ran {
        let args: Vec<OsString> = ["calicoctl"].iter().chain(args).map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io =
            Io { stdin: &mut stdin.as_bytes(), out: &mut out, err: &mut err, env: self.env.clone(), watched: false };
        let code = run(&args, &mut io);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ran { code, out: text(out), err: text(err) }
    }

    /// Runs the program, which must succeed; its output.
    #[allow(dead_code, reason = "not every test program needs it")]
    pub fn good(&self, line: &str, stdin: &str) -> String {
        let ran = self.run(line, stdin);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}: {ran:?}");
        ran.out
    }

    /// Runs the program, which must fail; its error.
    #[allow(dead_code, reason = "not every test program needs it")]
    pub fn bad(&self, line: &str, stdin: &str) -> String {
        let ran = self.run(line, stdin);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        ran.err
    }
}

/// A manifest of a kind.
#[allow(dead_code, reason = "not every test program needs it")]
pub fn manifest(kind: &str, name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  {spec}\n---\n")
}
