//! Certificates for a test: a CA, a member's, a client's, and wrong ones.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, in PEM form.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The files of a CA and what it signed.
pub struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ips: Vec<IpAddr>,
}

impl Pki {
    /// Makes a CA, a certificate for members with these addresses, and a client's.
    pub fn make(directory: &Path, ips: &[IpAddr]) -> Pki {
        fs::create_dir_all(directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "a CA");
        fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let pki = Pki { directory: directory.to_owned(), issuer: Issuer::new(params, key), ips: ips.to_vec() };
        pki.sign("server", false);
        pki.sign("client", false);
        pki
    }

    /// Makes a certificate that this CA signs.
    pub fn sign(&self, name: &str, expired: bool) -> Pair {
        let names = self.ips.iter().map(IpAddr::to_string).chain(["localhost".to_owned()]);
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = self.pair(name);
        fs::write(&pair.certificate, certificate.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    fn pair(&self, name: &str) -> Pair {
        let file = |extension: &str| self.directory.join(format!("{name}.{extension}"));
        Pair { certificate: file("pem"), key: file("key") }
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The members' certificate.
    pub fn server(&self) -> Pair {
        self.pair("server")
    }

    /// A client's certificate.
    pub fn client(&self) -> Pair {
        self.pair("client")
    }
}
