//! The HTTP client: one connection for all requests and watches where the server speaks HTTP/2, as every API server
//! does; else a connection for each request under way.
//!
//! A connection on which nothing comes is asked every half minute whether somebody is there.

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt as _;
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::config::chain;

/// Between questions whether the server is there.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to answer them.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// What the server may send of one answer before it is read, bytes: most answers as a whole.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all answers together: one that nobody reads keeps no other waiting.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// A client with these settings. Nothing is asked yet.
///
/// # Errors
/// What is wrong with the settings; never a secret.
pub(crate) fn client(config: Config) -> Result<Client, String> {
    let told = |error: kube::Error| chain(&error);
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let tls = config.rustls_client_config().map_err(told)?;
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(|_| format!("{name:?} is no name of a server"))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut connector = TimeoutConnector::new(builder.enable_http1().enable_http2().wrap_connector(http));
    connector.set_connect_timeout(config.connect_timeout);
    let client = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(ASK_EVERY)
        .http2_keep_alive_timeout(ANSWER_WITHIN)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(told)?)
        .layer(config.extra_headers_layer().map_err(told)?)
        .map_err(BoxError::from)
        .service(client);
    Ok(Client::new(service.boxed(), config.default_namespace))
}
