//! Code that is made from descriptions and checked in: gRPC stubs from `.proto` files, with no `protoc`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

/// What stands above generated code; the comments of generated code are not ours to lint.
const HEADER: &str = "//! Made from the `.proto` files by `cargo xtask codegen`; don't edit.\n\n";

/// A `.proto` file and the folder that its code is kept in.
struct Stub {
    folder: &'static str,
    proto: &'static str,
    code: &'static str,
}

const STUBS: [Stub; 1] =
    [Stub { folder: "crates/store/etcd/proto", proto: "etcd.proto", code: "crates/store/etcd/src/generated" }];

/// Writes all generated code.
pub fn codegen() -> Result<ExitCode> {
    for stub in &STUBS {
        for (name, text) in generate(Path::new(""), stub)? {
            let path = Path::new(stub.code).join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that belong into the stub's folder, by name.
fn generate(root: &Path, stub: &Stub) -> Result<Vec<(String, String)>> {
    let files = protox::compile([stub.proto], [root.join(stub.folder)]).with_context(|| stub.proto.to_owned())?;
    let out = std::env::temp_dir().join(format!("tortie-codegen-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let made = tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .bytes(".")
        .out_dir(&out)
        .compile_fds(files)
        .map_err(anyhow::Error::from)
        .and_then(|()| read(&out));
    fs::remove_dir_all(&out)?;
    made
}

fn read(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The lints here want a reason of every exception.
        let last = "        clippy::let_unit_value,\n";
        let text = fs::read_to_string(entry.path())?.replace(last, &format!("{last}        reason = \"generated\",\n"));
        files.push((name, format!("{HEADER}{text}")));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_that_is_checked_in_is_current() {
        let root = crate::command::root();
        for stub in &STUBS {
            for (name, text) in generate(&root, stub).expect("the description is right") {
                let path = root.join(stub.code).join(name);
                let kept = fs::read_to_string(&path).unwrap_or_default();
                assert!(kept == text, "{}: run `cargo xtask codegen`", path.display());
            }
        }
    }
}
