//! Options -> the configuration of the HTTP client, by the rules of `kubectl`.

use kube::config::{
    Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster, NamedContext,
};
use kube::{Config, config::AuthInfo};
use secrecy::SecretString;

use crate::Options;

/// The name of the context that single settings make where there is none.
const OURS: &str = "settings";

/// Reads what the options name. Files are read anew at each call, so that renewed credentials are found.
///
/// # Errors
/// A sentence that names the setting and what is wrong with it; it never holds a secret.
pub(crate) async fn load(options: &Options) -> Result<Config, String> {
    let mut config = if options.in_cluster() {
        let mut config = Config::incluster().map_err(|error| {
            format!(
                "no KUBECONFIG and no K8S_API_ENDPOINT is set, and this is no pod with a service account: {}",
                chain(&error)
            )
        })?;
        config.accept_invalid_certs |= options.insecure;
        config
    } else {
        let kubeconfig = with_overrides(read(options)?, options)?;
        let choice = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &choice)
            .await
            .map_err(|error| format!("{}: {}", options.origin(), chain(&error)))?
    };
    // Repetition, deadlines and limits are decided in one place: our own client.
    config.default_retry = false;
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    config.read_timeout = None;
    Ok(config)
}

fn read(options: &Options) -> Result<Kubeconfig, String> {
    if !options.kubeconfig_inline.is_empty() {
        return Kubeconfig::from_yaml(&options.kubeconfig_inline)
            .map_err(|error| format!("the inline kubeconfig: {}", chain(&error)));
    }
    let files = options.files();
    let mut all = Kubeconfig::default();
    for file in &files {
        let one = match Kubeconfig::read_from(file) {
            // As kubectl: of a list, files that are not there are passed over.
            Err(KubeconfigError::ReadConfig(error, _))
                if error.kind() == std::io::ErrorKind::NotFound && files.len() > 1 =>
            {
                continue;
            }
            other => other,
        };
        all = one
            .and_then(|one| all.merge(one))
            .map_err(|error| format!("KUBECONFIG {}: {}", file.display(), chain(&error)))?;
    }
    Ok(all)
}

/// Makes one context out of the chosen one and the settings that override it.
fn with_overrides(from: Kubeconfig, options: &Options) -> Result<Kubeconfig, String> {
    let name = if options.context.is_empty() { from.current_context.clone() } else { Some(options.context.clone()) };
    let context = match &name {
        Some(name) => from.contexts.iter().find(|context| context.name == *name).and_then(|c| c.context.clone()),
        None => None,
    };
    if context.is_none() && (options.endpoint.is_empty() || !options.context.is_empty()) {
        let known: Vec<&str> = from.contexts.iter().map(|context| context.name.as_str()).collect();
        let wanted = name.as_deref().unwrap_or("(no current-context)");
        return Err(format!("{}: no context {wanted}; it has: {}", options.origin(), known.join(", ")));
    }
    let cluster = context.as_ref().map(|c| c.cluster.clone()).unwrap_or_default();
    let mut cluster: Cluster = find(&from.clusters, |c| c.name == cluster, |c| c.cluster.clone());
    let user = context.and_then(|c| c.user).unwrap_or_default();
    let mut user: AuthInfo = find(&from.auth_infos, |u| u.name == user, |u| u.auth_info.clone());
    override_cluster(&mut cluster, options);
    override_user(&mut user, options);
    read_token(&mut user)?;
    let context = kube::config::Context { cluster: OURS.into(), user: Some(OURS.into()), ..Default::default() };
    Ok(Kubeconfig {
        clusters: vec![NamedCluster { name: OURS.into(), cluster: Some(cluster), ..Default::default() }],
        auth_infos: vec![NamedAuthInfo { name: OURS.into(), auth_info: Some(user), ..Default::default() }],
        contexts: vec![NamedContext { name: OURS.into(), context: Some(context), ..Default::default() }],
        current_context: Some(OURS.into()),
        ..Kubeconfig::default()
    })
}

fn find<T, U: Default>(items: &[T], is: impl Fn(&T) -> bool, value: impl Fn(&T) -> Option<U>) -> U {
    items.iter().find(|item| is(item)).and_then(value).unwrap_or_default()
}

fn override_cluster(cluster: &mut Cluster, options: &Options) {
    if !options.endpoint.is_empty() {
        cluster.server = Some(options.endpoint.clone());
    }
    if !options.ca_file.is_empty() {
        cluster.certificate_authority = Some(options.ca_file.clone());
        cluster.certificate_authority_data = None;
    }
    if options.insecure {
        cluster.insecure_skip_tls_verify = Some(true);
    }
}

fn override_user(user: &mut AuthInfo, options: &Options) {
    if !options.cert_file.is_empty() {
        user.client_certificate = Some(options.cert_file.clone());
        user.client_certificate_data = None;
    }
    if !options.key_file.is_empty() {
        user.client_key = Some(options.key_file.clone());
        user.client_key_data = None;
    }
    if !options.token.is_empty() {
        user.token = Some(SecretString::from(options.token.clone()));
        user.token_file = None;
    }
}

/// Takes a token out of its file where there are blanks around it, such as a line's end, which the client would send. It
/// is read again when the server refuses it; a file with nothing but a token is read again by the client each minute.
fn read_token(user: &mut AuthInfo) -> Result<(), String> {
    let (None, Some(file)) = (&user.token, &user.token_file) else { return Ok(()) };
    let wrong = |what: &str| format!("tokenFile {file}: {what}");
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong("it is empty: expected a token"));
    }
    if token != text {
        user.token = Some(SecretString::from(token));
        user.token_file = None;
    }
    Ok(())
}

/// An error with its causes, each told once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
apiVersion: v1
kind: Config
clusters:
- {name: a, cluster: {server: 'https://a.example:6443'}}
- {name: b, cluster: {server: 'https://b.example:6443', insecure-skip-tls-verify: true}}
users:
- {name: u, user: {token: s3cret}}
contexts:
- {name: one, context: {cluster: a, user: u}}
- {name: two, context: {cluster: b, user: u}}
current-context: one
";

    fn loaded(options: &Options) -> Result<Config, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(load(options))
    }

    fn inline() -> Options {
        Options { kubeconfig_inline: TEXT.into(), ..Options::default() }
    }

    #[test]
    fn contexts_and_overrides_choose_the_server() {
        let url = |options: &Options| loaded(options).expect("good").cluster_url.to_string();
        assert_eq!(url(&inline()), "https://a.example:6443/");
        assert_eq!(url(&Options { context: "two".into(), ..inline() }), "https://b.example:6443/");
        assert_eq!(url(&Options { endpoint: "https://c.example".into(), ..inline() }), "https://c.example/");
        let only = Options { endpoint: "http://127.0.0.1:8080".into(), ..Options::default() };
        assert_eq!(url(&only), "http://127.0.0.1:8080/");
    }

    #[test]
    fn files_of_a_list_are_merged() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config");
        std::fs::write(&file, TEXT).expect("a file");
        let missing = directory.path().join("missing");
        let list = format!("{}:{}", missing.display(), file.display());
        let config = loaded(&Options { kubeconfig: list, ..Options::default() }).expect("one is there");
        assert_eq!(config.cluster_url.to_string(), "https://a.example:6443/");
        let error = loaded(&Options { kubeconfig: missing.display().to_string(), ..Options::default() });
        let error = error.expect_err("it is not there");
        assert!(error.contains("KUBECONFIG") && error.contains("missing"), "{error}");
    }

    #[test]
    fn errors_name_the_setting_and_hold_no_secret() {
        let table = [
            (Options { context: "three".into(), ..inline() }, "no context three; it has: one, two"),
            (Options { kubeconfig_inline: "{".into(), ..inline() }, "the inline kubeconfig"),
            (Options { ca_file: "/does/not/exist".into(), ..inline() }, "/does/not/exist"),
            (Options { endpoint: "not a url".into(), ..inline() }, "K8S_API_ENDPOINT"),
        ];
        for (options, expected) in table {
            let error = loaded(&options).expect_err("no good settings");
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
