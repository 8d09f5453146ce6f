//! Certificates of X.509 version 1, which have no extensions: `openssl x509 -req` makes them, and libpq takes them as those of servers and
//! of clients. rustls reads version 3 only, except for roots.
//!
//! Such a certificate is given to rustls in the form of version 3, which says the same: it has the version in front, and no extensions
//! either. Its signature is over the form of version 1, so that is what is verified. All else is rustls' to judge: the chain, the times,
//! the revocation lists. An authority must have extensions that say so, and a root of version 1 must be one that is trusted; so it is in
//! OpenSSL (`check_ca`, crypto/x509/v3_purp.c).

use std::sync::LazyLock;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm};

use super::der::{self, SEQUENCE, element};

/// What says that a certificate is of version 3, the first element of its signed part.
const VERSION_3: &[u8] = &[0xA0, 0x03, 0x02, 0x01, 0x02];

/// A certificate of version 1 in the form of version 3; `None`: it is of another version.
pub(super) fn as_version_3(cert: &CertificateDer<'_>) -> Option<CertificateDer<'static>> {
    let (whole, _) = der::take(cert, SEQUENCE)?;
    let (body, signature) = der::take(whole, SEQUENCE)?;
    is_version_1(body).then_some(())?;
    let signed = element(SEQUENCE, &[VERSION_3, body]);
    Some(CertificateDer::from(element(SEQUENCE, &[&signed, signature])))
}

/// The signed part of a certificate of version 1, of the same in the form of version 3; `None`: it is nothing of the kind.
fn as_version_1(signed: &[u8]) -> Option<Vec<u8>> {
    let (body, rest) = der::take(signed, SEQUENCE)?;
    let body = body.strip_prefix(VERSION_3).filter(|body| rest.is_empty() && is_version_1(body))?;
    Some(element(SEQUENCE, &[body]))
}

/// Whether these are the fields of version 1: no version, and nothing after the public key.
fn is_version_1(mut body: &[u8]) -> bool {
    // Serial number; algorithm, issuer, validity, subject, public key.
    let fields = [der::INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE];
    fields.iter().all(|&tag| match der::take(body, tag) {
        Some((_, rest)) => {
            body = rest;
            true
        }
        None => false,
    }) && body.is_empty()
}

/// The algorithms of `usual`, which also verify signatures of certificates that [`as_version_3`] made.
pub(super) fn algorithms(usual: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    // They are made once, and are as many as there are algorithms.
    static ALL: LazyLock<&'static [&'static dyn SignatureVerificationAlgorithm]> = LazyLock::new(|| {
        let usual = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        let tolerant = |&algorithm| -> &'static dyn SignatureVerificationAlgorithm { Box::leak(Box::new(AnyVersion(algorithm))) };
        let all: Box<[_]> = usual.iter().map(tolerant).collect();
        Box::leak(all)
    });
    WebPkiSupportedAlgorithms { all: *ALL, ..usual }
}

/// An algorithm that takes a certificate in either form.
#[derive(Debug)]
struct AnyVersion(&'static dyn SignatureVerificationAlgorithm);

impl SignatureVerificationAlgorithm for AnyVersion {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.0.verify_signature(public_key, message, signature).or_else(|error| {
            let signed = as_version_1(message).ok_or(error)?;
            self.0.verify_signature(public_key, &signed, signature)
        })
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}
