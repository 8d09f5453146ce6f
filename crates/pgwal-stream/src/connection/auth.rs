//! Logging in: what the server asks, and what is answered. libpq: fe-auth.c.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::error::{AuthError, Error, Result};
use crate::conninfo::{AuthMethod, ChannelBindingMode};

/// What logging in goes by.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a str>,
    pub(super) channel_binding: ChannelBindingMode,
    pub(super) require_auth: Option<&'a [AuthMethod]>,
    /// Whether TLS is on.
    pub(super) tls: bool,
    /// `tls-server-end-point`, where TLS is on and the certificate has one.
    pub(super) end_point: Option<Vec<u8>>,
}

/// How far a login has come.
#[derive(Default)]
pub(super) struct Progress {
    scram: Option<ScramSha256>,
    /// The server has asked for something, and got it.
    method: Option<AuthMethod>,
    /// The server has shown in SCRAM that it knows the password.
    proven: bool,
    bound: bool,
    /// It has asked for a password.
    pub(super) password_asked: bool,
}

/// What to do after an AuthenticationRequest.
pub(super) enum Step {
    /// Logged in.
    Done,
    /// Answer, if there is anything in the buffer, and wait for the next message.
    Answer,
}

impl Login<'_> {
    /// Takes the body of an AuthenticationRequest and writes the answer.
    pub(super) fn step(&self, progress: &mut Progress, body: &[u8], out: &mut BytesMut) -> Result<Step> {
        let short = || Error::Message { message: "AuthenticationRequest", field: "type" };
        let (kind, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
        let kind = u32::from_be_bytes(*kind);
        let required = self.channel_binding == ChannelBindingMode::Require;
        if required && !matches!(kind, 0 | 10 | 11 | 12) {
            let reason = "the server's authentication request does not support it";
            return Err(Error::Auth(AuthError::ChannelBinding { reason }));
        }
        let wrong = |_| Error::Message { message: "AuthenticationRequest", field: "text" };
        match kind {
            0 => {
                if required && !(progress.bound && progress.proven) {
                    let reason = "the server let us in without it";
                    return Err(Error::Auth(AuthError::ChannelBinding { reason }));
                }
                if progress.scram.is_some() && !progress.proven {
                    return Err(Error::Auth(AuthError::Unproven));
                }
                if progress.method.is_none() {
                    self.allowed(AuthMethod::None)?;
                }
                Ok(Step::Done)
            }
            3 => {
                self.allowed(AuthMethod::Password)?;
                progress.method = Some(AuthMethod::Password);
                frontend::password_message(self.password(progress)?.as_bytes(), out).map_err(wrong)?;
                Ok(Step::Answer)
            }
            5 => {
                self.allowed(AuthMethod::Md5)?;
                progress.method = Some(AuthMethod::Md5);
                let salt = rest.first_chunk::<4>();
                let salt = salt.ok_or(Error::Message { message: "AuthenticationMD5Password", field: "salt" })?;
                let hash = md5_hash(self.user.as_bytes(), self.password(progress)?.as_bytes(), *salt);
                frontend::password_message(hash.as_bytes(), out).map_err(wrong)?;
                Ok(Step::Answer)
            }
            10 => self.sasl(progress, rest, out),
            11 => {
                let scram = progress.scram.as_mut().ok_or_else(|| early("AuthenticationSASLContinue"))?;
                // It can be read once only; a server that repeats it is refused there.
                scram.update(rest).map_err(scram_error)?;
                frontend::sasl_response(scram.message(), out).map_err(wrong)?;
                Ok(Step::Answer)
            }
            12 => {
                let scram = progress.scram.as_mut().ok_or_else(|| early("AuthenticationSASLFinal"))?;
                scram.finish(rest).map_err(scram_error)?;
                progress.proven = true;
                Ok(Step::Answer)
            }
            2 => Err(unsupported("Kerberos V5")),
            6 => Err(unsupported("SCM credential")),
            7 | 8 => Err(unsupported("GSSAPI")),
            9 => Err(unsupported("SSPI")),
            other => Err(unsupported(&format!("unknown ({other})"))),
        }
    }

    /// AuthenticationSASL: a list of mechanisms, of which SCRAM is known.
    fn sasl(&self, progress: &mut Progress, list: &[u8], out: &mut BytesMut) -> Result<Step> {
        if progress.scram.is_some() {
            return Err(early("AuthenticationSASL"));
        }
        let mechanisms: Vec<String> =
            list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let offered = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        let (plain, plus) = (offered(SCRAM_SHA_256), offered(SCRAM_SHA_256_PLUS));
        let refuse = |reason| Err(Error::Auth(AuthError::ChannelBinding { reason }));
        if plus && !self.tls {
            return Err(Error::Auth(AuthError::Scram { message: "the server offers channel binding without SSL".to_owned() }));
        }
        if !plain && !plus {
            return Err(unsupported(&format!("SASL ({})", mechanisms.join(", "))));
        }
        self.allowed(AuthMethod::ScramSha256)?;
        let (mechanism, binding) = match (self.channel_binding, &self.end_point) {
            (ChannelBindingMode::Disable, _) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            (_, Some(hash)) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.clone())),
            (ChannelBindingMode::Require, _) if !self.tls => return refuse("SSL is not in use"),
            (ChannelBindingMode::Require, None) => return refuse("the server's certificate is signed in a way that has no hash for it"),
            (ChannelBindingMode::Require, _) => return refuse("the server does not offer it"),
            // The server hears that we could, and will notice if somebody took its offer away.
            (_, Some(_)) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (_, None) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if mechanism == SCRAM_SHA_256 && !plain {
            return Err(unsupported(&format!("SASL ({})", mechanisms.join(", "))));
        }
        progress.method = Some(AuthMethod::ScramSha256);
        progress.bound = mechanism == SCRAM_SHA_256_PLUS;
        let scram = ScramSha256::new(self.password(progress)?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), out)
            .map_err(|_| Error::Message { message: "AuthenticationSASL", field: "mechanism" })?;
        progress.scram = Some(scram);
        Ok(Step::Answer)
    }

    fn password(&self, progress: &mut Progress) -> Result<&str> {
        progress.password_asked = true;
        self.password.ok_or(Error::Auth(AuthError::NoPassword))
    }

    fn allowed(&self, method: AuthMethod) -> Result<()> {
        match self.require_auth {
            Some(allowed) if !allowed.contains(&method) => Err(Error::Auth(AuthError::NotAllowed { method: method.to_string() })),
            _ => Ok(()),
        }
    }
}

fn unsupported(method: &str) -> Error {
    Error::Auth(AuthError::Unsupported { method: method.to_owned() })
}

fn early(message: &str) -> Error {
    Error::Auth(AuthError::Scram { message: format!("{message} out of turn") })
}

fn scram_error(error: std::io::Error) -> Error {
    Error::Auth(AuthError::Scram { message: error.to_string() })
}
