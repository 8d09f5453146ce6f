//! Connection strings, key by key and as URIs. libpq: `conninfo_parse`, `conninfo_uri_parse_options`, fe-connect.c.

use super::{ConnInfoError, Settings};

/// What URIs begin with; anything else is a list of `key=value`.
const URI_PREFIXES: [&str; 2] = ["postgresql://", "postgres://"];

/// Reads a connection string of either form into `settings`.
pub(super) fn parse(text: &str, settings: &mut Settings) -> Result<(), ConnInfoError> {
    match URI_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        Some(rest) => Uri { whole: text, rest }.parse(settings),
        None => key_values(text, settings),
    }
}

/// `key = value key='a value'`: blanks round `=`, quotes, and backslashes within and without quotes.
fn key_values(text: &str, settings: &mut Settings) -> Result<(), ConnInfoError> {
    let mut rest = text.trim_start_matches(blank);
    let mut before = String::new();
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || blank(c)).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(end);
        let Some(after) = after.trim_start_matches(blank).strip_prefix('=') else {
            // A password with blanks and without quotes goes on here.
            let after = if super::is_secret(&before) { super::HIDDEN } else { keyword };
            return Err(ConnInfoError::MissingEquals { after: after.to_owned() });
        };
        let after = after.trim_start_matches(blank);
        let (value, after) = match after.strip_prefix('\'') {
            Some(after) => quoted(after).ok_or(ConnInfoError::UnterminatedQuote)?,
            None => bare(after),
        };
        settings.set(keyword, value)?;
        keyword.clone_into(&mut before);
        rest = after.trim_start_matches(blank);
    }
    Ok(())
}

/// A value up to the closing quote, and what comes after that; `None`: there is none.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '\'' => return Some((value, chars.as_str())),
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
}

/// A value up to a blank or the end, and what comes after it.
fn bare(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        let before = chars.as_str();
        match chars.next() {
            None => return (value, before),
            Some(c) if blank(c) => return (value, before),
            Some('\\') => value.extend(chars.next()),
            Some(c) => value.push(c),
        }
    }
}

/// C: `isspace` in the C locale.
fn blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// `postgresql://user:password@host:port,host:port/dbname?key=value&…`
struct Uri<'a> {
    /// All of it, for errors.
    whole: &'a str,
    /// What follows `://`.
    rest: &'a str,
}

impl<'a> Uri<'a> {
    fn parse(self, settings: &mut Settings) -> Result<(), ConnInfoError> {
        let mut rest = self.rest;
        // Looked for up to the first slash only: a question mark does not end it, as it does not for libpq.
        if let Some((login, after)) = self.login() {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            store(settings, "user", user)?;
            store(settings, "password", password)?;
            rest = after;
        }
        let (mut hosts, mut ports) = (String::new(), String::new());
        loop {
            let (host, after) = match rest.strip_prefix('[') {
                Some(inside) => self.bracketed(inside)?,
                None => cut(rest, &[':', '/', '?', ',']),
            };
            hosts.push_str(host);
            rest = after;
            if let Some(after) = rest.strip_prefix(':') {
                let (port, after) = cut(after, &['/', '?', ',']);
                ports.push_str(port);
                rest = after;
            }
            let Some(after) = rest.strip_prefix(',') else { break };
            hosts.push(',');
            ports.push(',');
            rest = after;
        }
        store(settings, "host", &hosts)?;
        store(settings, "port", &ports)?;
        if let Some(after) = rest.strip_prefix('/') {
            let (dbname, after) = cut(after, &['?']);
            store(settings, "dbname", dbname)?;
            rest = after;
        }
        rest.strip_prefix('?').map_or(Ok(()), |parameters| query(parameters, settings))
    }

    /// `user:password`, and what follows its `@`.
    fn login(&self) -> Option<(&'a str, &'a str)> {
        let (before, _) = cut(self.rest, &['@', '/']);
        let after = self.rest.get(before.len()..)?.strip_prefix('@')?;
        Some((before, after))
    }

    /// The IPv6 address between brackets, of which the first has been read, and what follows the second.
    fn bracketed(&self, inside: &'a str) -> Result<(&'a str, &'a str), ConnInfoError> {
        let Some((host, after)) = inside.split_once(']') else {
            return Err(ConnInfoError::Ipv6Unterminated { uri: self.shown() });
        };
        if host.is_empty() {
            return Err(ConnInfoError::Ipv6Empty { uri: self.shown() });
        }
        match after.chars().next() {
            None | Some(':' | '/' | '?' | ',') => Ok((host, after)),
            Some(found) => {
                let position = self.whole.len() - after.len() + 1;
                Err(ConnInfoError::UriUnexpected { found, position, uri: self.shown() })
            }
        }
    }

    /// The URI without its passwords.
    fn shown(&self) -> String {
        let mut shown = match self.login() {
            Some((login, after)) => {
                let scheme = self.whole.len() - self.rest.len();
                let scheme = self.whole.get(..scheme).unwrap_or_default();
                match login.split_once(':') {
                    Some((user, _)) => format!("{scheme}{user}:{}@{after}", super::HIDDEN),
                    None => self.whole.to_owned(),
                }
            }
            None => self.whole.to_owned(),
        };
        // Among the parameters a password may be spelled in ways that are not worth telling apart.
        if let Some(at) = shown.find('?')
            && shown.get(at..).is_some_and(|query| query.contains("password") || query.contains('%'))
        {
            shown.truncate(at + 1);
            shown.push_str(super::HIDDEN);
        }
        shown
    }
}

/// The parameters of a URI: `key=value&key=value`.
fn query(parameters: &str, settings: &mut Settings) -> Result<(), ConnInfoError> {
    // A last `&` with nothing behind it is fine, an empty parameter elsewhere is not.
    if parameters.is_empty() {
        return Ok(());
    }
    let parameters = parameters.strip_suffix('&').unwrap_or(parameters);
    for parameter in parameters.split('&') {
        let Some((keyword, value)) = parameter.split_once('=') else {
            return Err(ConnInfoError::MissingSeparator { parameter: parameter.to_owned() });
        };
        if value.contains('=') {
            return Err(ConnInfoError::ExtraSeparator { parameter: keyword.to_owned() });
        }
        let keyword = decode(keyword)?;
        let value = decode(value).map_err(|error| hide(&keyword, error))?;
        // The spelling of JDBC.
        if keyword == "ssl" && value == "true" {
            settings.set("sslmode", "require".to_owned())?;
            continue;
        }
        settings.set(&keyword, value).map_err(|error| match error {
            ConnInfoError::UnknownOption { keyword } => ConnInfoError::UnknownParameter { parameter: keyword },
            other => other,
        })?;
    }
    Ok(())
}

/// Sets what is not empty, decoded.
fn store(settings: &mut Settings, keyword: &'static str, text: &str) -> Result<(), ConnInfoError> {
    if text.is_empty() {
        return Ok(());
    }
    settings.set(keyword, decode(text).map_err(|error| hide(keyword, error))?)
}

/// Takes the value of a secret out of the error about it.
fn hide(keyword: &str, error: ConnInfoError) -> ConnInfoError {
    let text = super::HIDDEN.to_owned();
    match error {
        _ if !super::is_secret(keyword) => error,
        ConnInfoError::PercentZero { .. } => ConnInfoError::PercentZero { text },
        ConnInfoError::PercentToken { .. } => ConnInfoError::PercentToken { text },
        ConnInfoError::PercentText { .. } => ConnInfoError::PercentText { text },
        other => other,
    }
}

/// `%2F` and the like become bytes. libpq: `conninfo_uri_decode`.
fn decode(text: &str) -> Result<String, ConnInfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
        match (digit(), digit()) {
            (Some(0), Some(0)) => return Err(ConnInfoError::PercentZero { text: text.to_owned() }),
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err(ConnInfoError::PercentToken { text: text.to_owned() }),
        }
    }
    String::from_utf8(bytes).map_err(|_| ConnInfoError::PercentText { text: text.to_owned() })
}

/// What stands before the first of `ends`, and the rest from there on.
fn cut<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}
