//! The kubeconfig beside the CNI configuration, with a token of the plugin's own service account, kept fresh.
//!
//! Tortie's plugin does not read it: it asks the node. It is there for other programs of the node that expect it, and
//! for a way back to upstream's plugin.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{Settings, atomic};

/// How long a token is asked to be good for, seconds; the API server may give less.
const VALIDITY_SECS: i64 = 24 * 60 * 60;

/// The longest that one token request may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// The service account of the token.
const ACCOUNT: &str = "calico-cni-plugin";

/// Its name.
pub(crate) const FILE: &str = "calico-kubeconfig";

/// Asks for a token and writes the file; how long the token is good.
pub(crate) fn write(settings: &Settings) -> Result<Duration> {
    let read = |name: &str| {
        let path = settings.service_account.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))
    };
    let namespace = read("namespace")?.trim().to_owned();
    let ca = read("ca.crt")?;
    let account = match settings.var("CALICO_CNI_SERVICE_ACCOUNT", "") {
        "" => ACCOUNT,
        other => other,
    };
    let (token, seconds) = request_token(&namespace, account)?;
    let path = settings.net_dir.join(FILE);
    atomic::write(&path, 0o600, render(settings, &ca, &token).as_bytes())?;
    Ok(Duration::from_secs(seconds))
}

/// Keeps the file fresh for as long as this process lives, where it is there or the configuration asks for it. Returns
/// at once, with `false` if nobody wants it, this is no pod, the host's folder is not mounted, or the file is somebody
/// else's affair (`CALICO_MANAGE_CNI=false`).
pub fn keep_current() -> bool {
    let vars: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let Ok(settings) = Settings::read(&vars) else { return false };
    if !is_ours(&vars) || !settings.keeps_kubeconfig() {
        return false;
    }
    let every = vars.get("CNI_TOKEN_REFRESH_INTERVAL").and_then(|text| go_seconds(text));
    let keep = move || {
        loop {
            let wait = match write(&settings) {
                // A quarter of its life, so that three refreshes may fail.
                Ok(life) => every.unwrap_or(life / 4).max(RETRY),
                Err(_) => RETRY,
            };
            rest(wait, &settings.service_account.join("token"));
        }
    };
    std::thread::Builder::new().name("cni-token".to_owned()).spawn(keep).is_ok()
}

fn is_ours(vars: &BTreeMap<String, String>) -> bool {
    vars.get("CALICO_MANAGE_CNI").is_none_or(|text| text.trim() != "false")
}

/// Waits, but not past a change of the pod's own token, as keys that change make every token void.
fn rest(wait: Duration, token: &Path) {
    let changed = || std::fs::metadata(token).and_then(|meta| meta.modified()).ok();
    let (before, until) = (changed(), Instant::now() + wait);
    while Instant::now() < until && changed() == before {
        std::thread::sleep(Duration::from_secs(5).min(until.saturating_duration_since(Instant::now())));
    }
}

fn request_token(namespace: &str, account: &str) -> Result<(String, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": { "audiences": [], "expirationSeconds": VALIDITY_SECS },
    });
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let answer = runtime.block_on(async {
        let ask = async {
            let client = kube::Client::try_default().await.context("no way to the API server is configured")?;
            let request = http::Request::post(&path)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(serde_json::to_vec(&body)?)?;
            client.request::<Value>(request).await.map_err(|error| explain(namespace, account, &error))
        };
        tokio::time::timeout(DEADLINE, ask).await.context("the API server did not answer in time")?
    })?;
    let status = &answer["status"];
    match status["token"].as_str() {
        Some(token) => {
            let granted = answer["spec"]["expirationSeconds"].as_u64().unwrap_or(3600);
            Ok((token.to_owned(), granted))
        }
        None => bail!("the API server answered without a token"),
    }
}

fn explain(namespace: &str, account: &str, error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 403 => anyhow::anyhow!(
            "RBAC: the verb create on serviceaccounts/token is missing for {account:?} in the namespace {namespace}"
        ),
        kube::Error::Api(status) if status.code == 404 => {
            anyhow::anyhow!("there is no service account {account:?} in the namespace {namespace}")
        }
        other => anyhow::anyhow!("the token of {account:?} can't be had: {other}"),
    }
}

fn render(settings: &Settings, ca: &str, token: &str) -> String {
    let host = settings.var("KUBERNETES_SERVICE_HOST", "");
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = settings.var("KUBERNETES_SERVICE_PORT", "443");
    let protocol = match settings.var("KUBERNETES_SERVICE_PROTOCOL", "") {
        "" => "https",
        other => other,
    };
    let trust = match settings.var("SKIP_TLS_VERIFY", "") {
        "true" => "insecure-skip-tls-verify: true".to_owned(),
        _ => format!("certificate-authority-data: {}", STANDARD.encode(ca)),
    };
    format!(
        "# For the CNI plugin; written and kept fresh by Tortie.\napiVersion: v1\nkind: Config\nclusters:\n- name: local\n  \
         cluster:\n    server: {protocol}://{host}:{port}\n    {trust}\nusers:\n- name: calico\n  user:\n    token: {token}\n\
         contexts:\n- name: calico-context\n  context:\n    cluster: local\n    user: calico\n\
         current-context: calico-context\n"
    )
}

/// Whole seconds of a duration such as `90s`, `30m` or `12h`.
fn go_seconds(text: &str) -> Option<Duration> {
    let (number, scale) = [("s", 1), ("m", 60), ("h", 3600)]
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.parse::<u64>().ok()?, *scale)))?;
    number.checked_mul(scale).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_that_a_client_reads() {
        let vars = [("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "6443"), ("SLEEP", "false")];
        let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = Settings::read(&vars).expect("good");
        let text = render(&settings, "CA", "T");
        let config = kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
        let cluster = config.clusters[0].cluster.clone().expect("a cluster");
        assert_eq!(cluster.server.as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Q0E="));
        assert_eq!(config.current_context.as_deref(), Some("calico-context"));
    }

    #[test]
    fn the_file_is_left_to_others_if_told_so() {
        let told = |value: &str| is_ours(&[("CALICO_MANAGE_CNI".to_owned(), value.to_owned())].into());
        assert!(is_ours(&BTreeMap::new()) && told("true") && told("") && !told("false"));
    }

    #[test]
    fn intervals_are_read() {
        assert_eq!(go_seconds("30m"), Some(Duration::from_secs(1800)));
        assert_eq!(go_seconds("soon"), None);
    }
}
