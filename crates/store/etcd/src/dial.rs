//! One connection to one member: TCP, TLS, HTTP/2, who the member is, and a token.
//!
//! A connection is only given out when the member has answered a request over it and knows a leader.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

use crate::endpoint::Endpoint;
use crate::fault::{Broken, Fault, Refusal, chain, refusal, source};
use crate::options::{Options, Setting};
use crate::proto;
use crate::tls;

/// How long a member may take for each step of a connection.
const STEP: Duration = Duration::from_secs(2);
/// How long an alert may take after the handshake.
const ALERT: Duration = Duration::from_millis(500);
/// How often a quiet connection is looked at. Members drop a client that does so more often than every 5 s.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a member may take to answer that.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/2 on a connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: http2::SendRequest<Body>,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    /// Always: a connection that has ended is told of by the call, with the reason that this answer would lose.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let sent = self.sender.try_send_request(request);
        Box::pin(async move {
            sent.await.map_err(|mut error| match error.take_message() {
                Some(_) => Broken::Unsent(error.into_error()),
                None => Broken::Lost(error.into_error()),
            })
        })
    }
}

/// Anything that bytes go through.
trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// A connection that works, or did when it was made.
pub(crate) struct Connection {
    pub(crate) endpoint: Endpoint,
    /// The cluster that the member belongs to, by etcd's own number.
    pub(crate) cluster: u64,
    channel: Channel,
    origin: http::Uri,
    token: Option<MetadataValue<Ascii>>,
}

impl Connection {
    /// Whether it has ended.
    pub(crate) fn closed(&self) -> bool {
        self.channel.sender.is_closed()
    }

    /// A request with what every request carries: the token, and that a member without a leader is of no use.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        request
    }

    pub(crate) fn kv(&self) -> proto::kv_client::KvClient<Channel> {
        // A page holds what it holds: the store's own limits are the bound.
        proto::kv_client::KvClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn watch(&self) -> proto::watch_client::WatchClient<Channel> {
        proto::watch_client::WatchClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn lease(&self) -> proto::lease_client::LeaseClient<Channel> {
        proto::lease_client::LeaseClient::with_origin(self.channel.clone(), self.origin.clone())
    }
}

/// Who this client is for etcd, as messages say it.
pub(crate) fn user(options: &Options) -> String {
    match (&options.username, options.cert_file.as_ref().or(options.cert.as_ref())) {
        (Some(Setting { value, origin }), _) => format!("the user {value:?} of {origin}"),
        (None, Some(Setting { value: _, origin })) => format!("the user of the certificate of {origin}"),
        (None, None) => "no user".to_owned(),
    }
}

/// Connects to a member.
pub(crate) async fn dial(endpoint: &Endpoint, options: &Options) -> Result<Connection, Fault> {
    let name = endpoint.to_string();
    let tcp = step(&name, "connect", connect(endpoint)).await?;
    let pipe: Box<dyn Pipe> = if endpoint.tls {
        step(&name, "finish the TLS handshake", handshake(endpoint, options, tcp)).await?
    } else {
        Box::new(tcp)
    };
    let (sender, ended) = http2(&name, pipe).await?;
    let origin = name.parse().map_err(|_| Fault::Unusable(format!("{name}: no such address can be")))?;
    let mut connection =
        Connection { endpoint: endpoint.clone(), cluster: 0, channel: Channel { sender }, origin, token: None };
    match timeout(STEP, introduce(&mut connection, options)).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(status)) => Err(explain(&status, &ended, &connection.endpoint, options).await),
        Err(_) => Err(Fault::Unavailable(format!("{name} takes connections but does not answer"))),
    }
}

/// One step with its deadline.
async fn step<T>(name: &str, what: &str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match timeout(STEP, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::Unavailable(format!("{name} did not {what} within {} s", STEP.as_secs()))),
    }
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, Fault> {
    let unavailable = |error: std::io::Error| Fault::Unavailable(format!("{endpoint}: {error}"));
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(unavailable)?;
    stream.set_nodelay(true).map_err(unavailable)?;
    Ok(stream)
}

async fn handshake(endpoint: &Endpoint, options: &Options, tcp: TcpStream) -> Result<Box<dyn Pipe>, Fault> {
    let config = tls::config(options)?;
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| Fault::Unusable(format!("{endpoint}: the host can't be in a certificate")))?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(source::<rustls::Error>(&error)
            .and_then(|error| tls::explain(error, options))
            .map(|text| Fault::Unusable(format!("{endpoint}: {text}")))
            .unwrap_or_else(|| {
                let hint = "if etcd uses no TLS there: expected http:// in ETCD_ENDPOINTS";
                Fault::Unavailable(format!("{endpoint}: TLS: {} ({hint})", chain(&error)))
            })),
    }
}

/// Why a connection ended, once it has.
type Ended = Arc<Mutex<Option<hyper::Error>>>;

async fn http2(name: &str, pipe: Box<dyn Pipe>) -> Result<(http2::SendRequest<Body>, Ended), Fault> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(pipe))
        .await
        .map_err(|error| Fault::Unavailable(format!("{name}: {}", chain(&error))))?;
    let ended = Ended::default();
    let note = ended.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    });
    Ok((sender, ended))
}

/// Asks the member how it is, and for a token if there is a user.
async fn introduce(connection: &mut Connection, options: &Options) -> Result<(), Status> {
    let (channel, origin) = (connection.channel.clone(), connection.origin.clone());
    let mut maintenance = proto::maintenance_client::MaintenanceClient::with_origin(channel.clone(), origin.clone());
    match maintenance.status(Request::new(proto::StatusRequest {})).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            connection.cluster = answer.header.map_or(0, |header| header.cluster_id);
            if answer.leader == 0 {
                return Err(Status::unavailable("the member knows no leader"));
            }
        }
        // A later etcd may tell this to nobody but users: an answer all the same.
        Err(status)
            if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument) => {}
        Err(status) => return Err(status),
    }
    let (Some(name), Some(password)) = (&options.username, &options.password) else { return Ok(()) };
    let mut auth = proto::auth_client::AuthClient::with_origin(channel, origin);
    let asked = proto::AuthenticateRequest { name: name.value.clone(), password: password.value.clone() };
    match auth.authenticate(Request::new(asked)).await {
        Ok(answer) => {
            let token = answer.into_inner().token.parse();
            connection.token = Some(token.map_err(|_| Status::internal("a token that can't be sent back"))?);
            Ok(())
        }
        // As upstream's client: without authentication there is nothing to prove.
        Err(status) if status.message().contains("authentication is not enabled") => Ok(()),
        Err(status) => Err(status),
    }
}

/// Why the member ends TLS right after the handshake, if it does: that is when it refuses a client's certificate. It is
/// asked once more without a word, as what is written to a connection that it has ended can hide its alert.
async fn refused(endpoint: &Endpoint, options: &Options) -> Option<Fault> {
    let tcp = connect(endpoint).await.ok()?;
    let mut pipe = match handshake(endpoint, options, tcp).await {
        Ok(pipe) => pipe,
        Err(fault @ Fault::Unusable(_)) => return Some(fault),
        Err(_) => return None,
    };
    let error = timeout(ALERT, pipe.read_u8()).await.ok()?.err()?;
    let alert = tls::alert(&chain(&error));
    let text = tls::explain(source::<rustls::Error>(&error).or(alert.as_ref())?, options)?;
    Some(Fault::Unusable(format!("{endpoint}: {text}")))
}

/// What a failed introduction means.
async fn explain(status: &Status, ended: &Ended, endpoint: &Endpoint, options: &Options) -> Fault {
    let name = endpoint.to_string();
    if std::error::Error::source(status).is_none() {
        return match refusal(status, &name, &user(options)) {
            Refusal::Final(fault) => fault,
            Refusal::NotDone(text) | Refusal::Unknown(text) => Fault::Unavailable(text),
        };
    }
    // The connection's own error says more than that of the request that waited on it.
    for _ in 0..20 {
        if ended.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if endpoint.tls
        && let Some(fault) = timeout(STEP, refused(endpoint, options)).await.ok().flatten()
    {
        return fault;
    }
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    let of_connection = ended.as_ref().map(|error| error as &(dyn std::error::Error + 'static));
    let tls = of_connection.and_then(source::<rustls::Error>).or_else(|| source::<rustls::Error>(status));
    let text = of_connection.map_or_else(|| chain(status), chain);
    let alert = tls::alert(&text);
    if let Some(text) = tls.or(alert.as_ref()).and_then(|error| tls::explain(error, options)) {
        return Fault::Unusable(format!("{name}: {text}"));
    }
    let hint = if endpoint.tls { "" } else { " (if etcd uses TLS there: expected https:// in ETCD_ENDPOINTS)" };
    Fault::Unavailable(format!("{name} ended the connection: {text}{hint}"))
}
