//! TLS as libpq does it: who is trusted, what the name of a certificate must be, the client's own certificate.
//! libpq: fe-secure-openssl.c, fe-secure-common.c.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::error::{Error, Result};
use super::stream::Wait;
use super::{der, v1};
use crate::conninfo::{NamedFile, Roots, SslMode, TlsConfig, TlsVersion};
use crate::input_file::{self, MAX_CERTIFICATES, Patience, Problem};

/// What TLS to a server needs, read from the files, which may be pipes and are waited for no longer than `wait` says.
///
/// # Errors
/// A file that must be there and is not, or cannot be used.
pub(super) fn client(config: &TlsConfig, wait: Wait<'_>) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (lowest, highest) = config.versions;
    let versions: Vec<_> = [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
        .into_iter()
        .filter(|(version, _)| (lowest..=highest).contains(version))
        .map(|(_, version)| version)
        .collect();
    let verifier = Verifier::new(config, &provider, wait)?;
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(Error::Tls)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = match identity(config, wait)? {
        Some((chain, key)) => {
            let identity = certified(chain, key, builder.crypto_provider()).map_err(|error| Error::TlsFile {
                what: "certificate",
                path: shown(config.cert.as_ref()),
                problem: format!("cannot be used with its private key: {error}"),
            })?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    client.enable_sni = config.sni;
    if config.direct {
        // Without it a server takes no TLS from the first byte.
        client.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Arc::new(client))
}

/// The client's certificates and their key, where there are any.
fn identity(config: &TlsConfig, wait: Wait<'_>) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let Some(cert) = &config.cert else { return Ok(None) };
    let what = "certificate file";
    let Some(bytes) = optional(cert, what, wait)? else { return Ok(None) };
    let chain = certificates(&bytes, what, &cert.path)?;
    let what = "private key file";
    let Some(key) = &config.key else {
        return Err(Error::TlsFile { what: "certificate", path: shown(Some(cert)), problem: "no private key is named".to_owned() });
    };
    let fail = |problem: String| Error::TlsFile { what, path: shown(Some(key)), problem };
    if key.path.to_string_lossy().contains(':') && !key.path.exists() {
        return Err(fail("keys in hardware (engine:name) are not supported".to_owned()));
    }
    // As libpq has it: its key is not read from a pipe.
    let file = input_file::open_regular(&key.path).map_err(|error| fail(error.to_string()))?;
    let meta = file.metadata().map_err(|error| fail(error.to_string()))?;
    // Keys of root may be readable by a group.
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.permissions().mode() & forbidden != 0 {
        let problem = "has group or world access; file must have permissions u=rw (0600) or less if owned by the current user, \
                       or permissions u=rw,g=r (0640) or less if owned by root";
        return Err(fail(problem.to_owned()));
    }
    let bytes = input_file::read_regular(file, MAX_CERTIFICATES).map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(fail("is encrypted, which is not supported".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| fail(format!("has no private key in PEM: {error}")))?;
    Ok(Some((chain, key)))
}

/// Certificates with a key that must fit.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> std::result::Result<CertifiedKey, rustls::Error> {
    let Some(comparable) = chain.first().and_then(v1::as_version_3) else {
        return CertifiedKey::from_der(chain, key, provider);
    };
    let CertifiedKey { key, .. } = CertifiedKey::from_der(vec![comparable], key, provider)?;
    Ok(CertifiedKey::new(chain, key))
}

fn certificates(bytes: &[u8], what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let fail = |problem| Error::TlsFile { what, path: path.display().to_string(), problem };
    let chain: std::result::Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(fail("has no certificate in PEM".to_owned())),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// The bytes of a file; `None`: it does not exist and nobody named it.
fn optional(file: &NamedFile, what: &'static str, wait: Wait<'_>) -> Result<Option<Vec<u8>>> {
    match input_file::read(&file.path, MAX_CERTIFICATES, Patience { until: wait.until, stop: wait.stop }) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if Problem::of(&error) == Some(Problem::Interrupted) => Err(Error::Interrupted),
        Err(error) if !file.named && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::TlsFile { what, path: shown(Some(file)), problem: error.to_string() }),
    }
}

fn shown(file: Option<&NamedFile>) -> String {
    file.map(|file| file.path.display().to_string()).unwrap_or_default()
}

/// The name that is sent, and that the certificate must have. A name that DNS could not have gets a substitute: it is never sent, and
/// [`Verifier`] has the real one.
pub(super) fn server_name(host: &str) -> (ServerName<'static>, bool) {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => (name, true),
        Err(_) => (ServerName::IpAddress(rustls::pki_types::IpAddr::V4([0, 0, 0, 0].into())), false),
    }
}

/// Judges the server's certificate by `sslmode`.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Judges the chain, and the name after it; `None`: nothing is judged.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the root file, which are trusted as they are.
    trusted: Vec<CertificateDer<'static>>,
    /// Whether the name counts.
    name: bool,
}

impl Verifier {
    fn new(config: &TlsConfig, provider: &Arc<CryptoProvider>, wait: Wait<'_>) -> Result<Verifier> {
        let unjudged = Verifier { provider: provider.clone(), chain: None, trusted: Vec::new(), name: false };
        let what = "root certificate file";
        let trusted = match &config.roots {
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    let problem = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
                    return Err(Error::TlsFile { what: "root certificates of the system", path: String::new(), problem });
                }
                found.certs
            }
            Roots::File(file) => {
                // As libpq: a file that is not there matters only where it is needed.
                let bytes = optional(&NamedFile { named: false, ..file.clone() }, what, wait)?;
                match bytes {
                    Some(bytes) => certificates(&bytes, what, &file.path)?,
                    None if config.mode < SslMode::VerifyCa => return Ok(unjudged),
                    None => {
                        let problem = "does not exist; either provide the file, use the system's trusted roots with sslrootcert=system, \
                                       or change sslmode to disable server certificate verification";
                        return Err(Error::TlsFile { what, path: shown(Some(file)), problem: problem.to_owned() });
                    }
                }
            }
            Roots::None if config.mode < SslMode::VerifyCa => return Ok(unjudged),
            Roots::None => {
                return Err(Error::TlsFile { what, path: String::new(), problem: "there is no home directory to find it in".to_owned() });
            }
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(trusted.iter().cloned());
        if added == 0 {
            let path = if let Roots::File(file) = &config.roots { shown(Some(file)) } else { String::new() };
            return Err(Error::TlsFile { what, path, problem: "none of its certificates can be used".to_owned() });
        }
        let algorithms = v1::algorithms(provider.signature_verification_algorithms);
        let of_any_version = CryptoProvider { signature_verification_algorithms: algorithms, ..(**provider).clone() };
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(of_any_version));
        if let Some(file) = &config.crl {
            let what = "certificate revocation list file";
            if let Some(bytes) = optional(file, what, wait)? {
                let fail = |problem| Error::TlsFile { what, path: shown(Some(file)), problem };
                let lists: std::result::Result<Vec<_>, pem::Error> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
                let lists = lists.map_err(|error| fail(error.to_string()))?;
                if lists.is_empty() {
                    return Err(fail("has no revocation list in PEM".to_owned()));
                }
                builder = builder.with_crls(lists);
            }
        }
        let chain = builder.build().map_err(|error| match &error {
            // Such as one of version 1, which rustls does not take.
            VerifierBuilderError::InvalidCrl(_) => {
                Error::TlsFile { what: "certificate revocation list file", path: shown(config.crl.as_ref()), problem: error.to_string() }
            }
            error => Error::TlsFile { what, path: String::new(), problem: error.to_string() },
        })?;
        Ok(Verifier { chain: Some(chain), trusted, name: config.mode == SslMode::VerifyFull, ..unjudged })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let readable = v1::as_version_3(end_entity);
        match chain.verify_server_cert(readable.as_ref().unwrap_or(end_entity), intermediates, server_name, ocsp_response, now) {
            // The name is judged below, and comes after everything else here.
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) =>
                {}
            // A self-signed certificate is usually one of an authority, too; it is trusted for being in the file, as OpenSSL does.
            Err(rustls::Error::InvalidCertificate(error)) if self.trusted.contains(end_entity) && is_authority(&error) => {
                der::Certificate::parse(end_entity).filter(|cert| cert.is_valid_at(now.as_secs())).ok_or(CertificateError::Expired)?;
            }
            Err(error) => return Err(error),
        }
        if self.name && !has_name(end_entity, server_name) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let readable = v1::as_version_3(cert);
        let cert = readable.as_ref().unwrap_or(cert);
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let readable = v1::as_version_3(cert);
        let cert = readable.as_ref().unwrap_or(cert);
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the certificate was refused only for being one of an authority. rustls has no name of its own for that.
fn is_authority(error: &CertificateError) -> bool {
    match error {
        CertificateError::Other(other) => other.to_string().contains("CaUsedAsEndEntity"),
        _ => false,
    }
}

/// Whether the certificate is for the host: by its alternative names, or, without one of the host's kind, by its common name.
/// libpq: `pgtls_verify_peer_name_matches_certificate_guts`.
fn has_name(cert: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    if ParsedCertificate::try_from(cert).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok()) {
        return true;
    }
    let Some(parsed) = der::Certificate::parse(cert) else { return false };
    let (wanted, has_alternatives) = match name {
        ServerName::DnsName(name) => (name.as_ref().to_owned(), parsed.has_dns_names),
        ServerName::IpAddress(address) => (std::net::IpAddr::from(*address).to_string(), parsed.has_addresses),
        _ => return false,
    };
    !has_alternatives && parsed.common_name.is_some_and(|found| matches_name(&found, &wanted))
}

/// Whether a name is that of the host; `*.` stands for one label. libpq: `wildcard_certificate_match`.
fn matches_name(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => !label.is_empty() && !domain.is_empty() && domain.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

/// `tls-server-end-point`: the hash of the certificate by its signature's algorithm. RFC 5929, section 4. `None`: it has none that
/// the RFC defines.
pub(super) fn end_point(cert: &[u8]) -> Option<Vec<u8>> {
    let parsed = der::Certificate::parse(cert)?;
    match parsed.signature_hash()? {
        der::Hash::Sha256 => Some(Sha256::digest(cert).to_vec()),
        der::Hash::Sha384 => Some(Sha384::digest(cert).to_vec()),
        der::Hash::Sha512 => Some(Sha512::digest(cert).to_vec()),
    }
}
