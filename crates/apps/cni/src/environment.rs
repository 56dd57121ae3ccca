//! What the runtime tells by environment variables (CNI spec, "Protocol parameters").

use std::collections::BTreeMap;

use crate::spec::{CniError, code};

/// The call's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; empty when not given (allowed for DEL).
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`, taken apart.
    pub args: BTreeMap<String, String>,
    /// `CNI_PATH`.
    pub path: Vec<String>,
}

impl Environment {
    /// Reads the parameters; `var` is the environment. An error names the variable and what was expected.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Result<Environment, CniError> {
        let get = |name: &str| var(name).unwrap_or_default();
        let wrong = |text: String| Err(CniError::new(code::INVALID_ENVIRONMENT, text));
        let command = get("CNI_COMMAND");
        let (needs_container, needs_netns) = match command.as_str() {
            "ADD" | "CHECK" => (true, true),
            "DEL" => (true, false),
            "VERSION" | "STATUS" | "GC" => (false, false),
            other => {
                return wrong(format!("CNI_COMMAND is {other:?}: expected ADD, DEL, CHECK, GC, STATUS or VERSION"));
            }
        };
        let environment = Environment {
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: read_args(&get("CNI_ARGS"))?,
            path: get("CNI_PATH").split(':').filter(|p| !p.is_empty()).map(str::to_owned).collect(),
            command,
        };
        if needs_container && !is_container_id(&environment.container_id) {
            return wrong(format!(
                "CNI_CONTAINERID is {:?}: expected a letter or digit, then letters, digits, '.', '_' or '-'",
                environment.container_id
            ));
        }
        if needs_container && !is_interface_name(&environment.ifname) {
            return wrong(format!(
                "CNI_IFNAME is {:?}: expected 1 to 15 characters, neither '.' nor '..', without '/', ':' or blanks",
                environment.ifname
            ));
        }
        if needs_netns && environment.netns.is_empty() {
            return wrong(format!("CNI_NETNS is not set: {} needs it", environment.command));
        }
        Ok(environment)
    }
}

fn read_args(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(CniError::new(
                code::INVALID_ENVIRONMENT,
                format!("CNI_ARGS holds {pair:?}: expected KEY=VALUE pairs joined by ';'"),
            )),
        })
        .collect()
}

fn is_container_id(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(['/', ':'])
        && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, CniError> {
        let map: BTreeMap<_, _> = pairs.iter().copied().collect();
        Environment::read(|name| map.get(name).map(|v| (*v).to_owned()))
    }

    #[test]
    fn parameters_are_read() {
        let all = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "abc-1"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p"),
            ("CNI_PATH", "/a:/b"),
        ];
        let environment = read(&all).expect("everything is there");
        assert_eq!(environment.args["K8S_POD_NAME"], "p");
        assert_eq!(environment.path, ["/a", "/b"]);
        for missing in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            let some: Vec<_> = all.iter().copied().filter(|(name, _)| *name != missing).collect();
            let error = read(&some).expect_err(missing);
            assert_eq!(error.code, code::INVALID_ENVIRONMENT);
            assert!(error.msg.contains(missing), "{error}");
        }
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        for (name, value) in [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b"), ("CNI_ARGS", "x")] {
            let mut pairs = vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
            pairs.retain(|(n, _)| *n != name);
            pairs.push((name, value));
            assert!(read(&pairs).is_err(), "{name}={value}");
        }
    }
}
