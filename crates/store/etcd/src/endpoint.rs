//! A member's address: `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT`.

use std::fmt;

/// Where a member listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) tls: bool,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { tls, host, port } = self;
        let scheme = if *tls { "https" } else { "http" };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

impl Endpoint {
    /// Reads one endpoint; without a scheme, `tls` says which is meant.
    pub(crate) fn parse(text: &str, tls: bool) -> Result<Endpoint, String> {
        let wrong = |what: &str| format!("{text:?}: {what}: expected http://HOST:PORT or https://HOST:PORT");
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(wrong(&format!("the scheme {scheme:?} is unknown"))),
            None => (tls, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| wrong("a bracket is open"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong("what is in brackets is no IPv6 address"))?;
                (host, port.strip_prefix(':').ok_or_else(|| wrong("no port"))?)
            }
            None => rest.rsplit_once(':').ok_or_else(|| wrong("no port (etcd's is 2379)"))?,
        };
        let good = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(good) || (host.contains(':') && !rest.starts_with('[')) {
            return Err(wrong("the host is no name and no address"));
        }
        let port = port.parse().map_err(|_| wrong("the port is no number up to 65535"))?;
        Ok(Endpoint { tls, host: host.to_owned(), port })
    }

    /// Reads a list with commas between.
    pub(crate) fn parse_list(text: &str, tls: bool) -> Result<Vec<Endpoint>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| Endpoint::parse(part, tls)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, tls, shown) in [
            ("http://10.0.0.1:2379", true, "http://10.0.0.1:2379"),
            ("https://etcd-1.local:2379/", false, "https://etcd-1.local:2379"),
            ("https://[fd00::1]:2379", false, "https://[fd00::1]:2379"),
            ("127.0.0.1:2379", false, "http://127.0.0.1:2379"),
            ("etcd:2379", true, "https://etcd:2379"),
        ] {
            assert_eq!(Endpoint::parse(text, tls).map(|e| e.to_string()), Ok(shown.to_owned()), "{text}");
        }
        assert_eq!(Endpoint::parse_list("http://a:1, http://b:2,", false).map(|list| list.len()), Ok(2));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_form() {
        for text in [
            "",
            "htp://a:1",
            "http://a",
            "http://:1",
            "http://a:x",
            "http://[::1",
            "http://::1:2379",
            "a b:1",
            "http://a:1/v3",
        ] {
            let error = Endpoint::parse(text, false).expect_err(text);
            assert!(error.contains("http://HOST:PORT"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Endpoint::parse_list(&text, true);
            let _ = Endpoint::parse_list(&format!("http://{text}"), true);
        }
    }
}
