//! TLS to the members: what is trusted, what this client shows, and what a failed handshake means.
//!
//! The files are read at every connection, so that renewed certificates count without a restart.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use crate::fault::Fault;
use crate::options::{Options, Setting};

/// What TLS needs, made of the settings.
pub(crate) fn config(options: &Options) -> Result<Arc<ClientConfig>, Fault> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Unusable(format!("TLS can't be set up: {error}")))?
        .with_root_certificates(roots(options)?);
    let mut config = match identity(options)? {
        None => builder.with_no_client_auth(),
        Some((chain, key, origin)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            Fault::Unusable(format!("{origin}: the certificate and its key don't go together: {error}"))
        })?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Checks what the settings name without connecting.
pub(crate) fn check(options: &Options) -> Result<(), Fault> {
    if options.ca_file.is_some() || options.ca.is_some() {
        roots(options)?;
    }
    identity(options).map(drop)
}

fn roots(options: &Options) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let Some((pem, origin)) = text(options.ca_file.as_ref(), options.ca.as_ref())? else {
        // What can't be read of the host's own is none of this program's business; the handshake says what is missing.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in certificates(&pem, &origin)? {
        roots
            .add(certificate)
            .map_err(|error| Fault::Unusable(format!("{origin}: a certificate is wrong: {error}")))?;
    }
    Ok(roots)
}

/// The client's certificates, its key, and the origin of the certificate.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

fn identity(options: &Options) -> Result<Option<Identity>, Fault> {
    let certificate = text(options.cert_file.as_ref(), options.cert.as_ref())?;
    let key = text(options.key_file.as_ref(), options.key.as_ref())?;
    let (Some((certificate, origin)), Some((key, key_origin))) = (certificate, key) else { return Ok(None) };
    let chain = certificates(&certificate, &origin)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| Fault::Unusable(format!("{key_origin}: no private key in PEM form is there")))?;
    Ok(Some((chain, key, origin)))
}

/// The text of a file or of the setting itself, with the origin for messages.
fn text(file: Option<&Setting>, inline: Option<&Setting>) -> Result<Option<(Vec<u8>, String)>, Fault> {
    match (file, inline) {
        (Some(Setting { value, origin }), _) => {
            let origin = format!("{origin} ({value})");
            let read = std::fs::read(value).map_err(|error| Fault::Unusable(format!("{origin}: {error}")))?;
            Ok(Some((read, origin)))
        }
        (None, Some(Setting { value, origin })) => Ok(Some((value.clone().into_bytes(), origin.clone()))),
        (None, None) => Ok(None),
    }
}

fn certificates(pem: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(Fault::Unusable(format!("{origin}: no certificate in PEM form is there"))),
        Err(error) => Err(Fault::Unusable(format!("{origin}: expected certificates in PEM form: {error}"))),
    }
}

/// What a TLS error means, with the setting to look at; `None` if it may pass by itself.
pub(crate) fn explain(error: &Error, options: &Options) -> Option<String> {
    let named = |file: &Option<Setting>, text: &Option<Setting>, name: &str| {
        file.as_ref().or(text.as_ref()).map_or_else(|| format!("{name}, which is not set"), |s| s.origin.clone())
    };
    let ca = named(&options.ca_file, &options.ca, "ETCD_CA_CERT_FILE");
    let own = named(&options.cert_file, &options.cert, "ETCD_CERT_FILE");
    let endpoints = named(&options.endpoints, &options.discovery_srv, "ETCD_ENDPOINTS");
    Some(match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("the member's certificate is not signed by a CA of {ca}")
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the member's certificate has expired: renew it, and look at this host's clock ({error})")
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!("the member's certificate is not valid yet: look at this host's clock ({error})")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("the member's certificate is for other names than that of {endpoints} ({error})"),
        Error::InvalidCertificate(_) => format!("the member's certificate can't be used ({error})"),
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            format!("the member says that this client's certificate has expired: renew it ({own})")
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => format!("the member takes only clients with a certificate of its CA: it refused that of {own} ({error})"),
        Error::InvalidMessage(_) => format!("the member does not speak TLS: expected http:// in {endpoints}?"),
        Error::AlertReceived(_) | Error::NoApplicationProtocol | Error::PeerIncompatible(_) => {
            format!("the member and this client have no TLS in common ({error})")
        }
        _ => return None,
    })
}

/// The alert that an error's text tells of: HTTP/2 keeps the text of an error below it, but not the error.
pub(crate) fn alert(text: &str) -> Option<Error> {
    let word = text.split("received fatal alert: ").nth(1)?;
    [
        AlertDescription::BadCertificate,
        AlertDescription::UnknownCA,
        AlertDescription::CertificateUnknown,
        AlertDescription::CertificateRequired,
        AlertDescription::CertificateExpired,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::AccessDenied,
    ]
    .into_iter()
    .find(|alert| word.starts_with(&format!("{alert:?}")))
    .map(Error::AlertReceived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_known_by_its_text() {
        for alert in [AlertDescription::BadCertificate, AlertDescription::CertificateRequired] {
            let error = Error::AlertReceived(alert);
            assert_eq!(super::alert(&format!("connection error: {error}: more")), Some(error));
        }
        assert_eq!(super::alert("connection reset"), None);
    }

    #[test]
    fn what_can_t_be_read_is_named_with_its_setting() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n").expect("written");
        let file = |path: &str| Some(Setting::new(path, "environment variable ETCD_CA_CERT_FILE"));
        let inline = |text: &str| Some(Setting::new(text, "calicoctl.cfg: spec.etcdCert"));
        let shown = path.to_str().expect("UTF-8");
        for (options, parts) in [
            (
                Options { ca_file: file("/nowhere/ca.pem"), ..Options::default() },
                ["ETCD_CA_CERT_FILE", "/nowhere/ca.pem"],
            ),
            (Options { ca_file: file(shown), ..Options::default() }, ["ETCD_CA_CERT_FILE", "x.pem"]),
            (Options { cert: inline("x"), key: inline("x"), ..Options::default() }, ["spec.etcdCert", "PEM"]),
        ] {
            let Err(Fault::Unusable(text)) = check(&options) else { panic!("{parts:?}") };
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
