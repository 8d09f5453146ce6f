//! The few fields of a certificate that rustls does not tell. X.509: RFC 5280, section 4.1.
//!
//! Whether a certificate is genuine is for rustls to say; here it is only read.

/// What is needed of a certificate.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    /// OID of the algorithm that it is signed with, without tag and length.
    algorithm: &'a [u8],
    /// Its validity, in seconds since 1970.
    validity: Option<(u64, u64)>,
    /// The last common name of the subject, which is the most specific.
    pub(super) common_name: Option<String>,
    /// It has alternative names that are DNS names.
    pub(super) has_dns_names: bool,
    /// It has alternative names that are IP addresses.
    pub(super) has_addresses: bool,
}

/// A hash for channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl<'a> Certificate<'a> {
    /// `None`: it is no certificate.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Certificate<'a>> {
        let (whole, _) = take(bytes, SEQUENCE)?;
        let (body, rest) = take(whole, SEQUENCE)?;
        let (algorithm, _) = take(rest, SEQUENCE)?;
        let (algorithm, _) = take(algorithm, OID)?;
        // Version, where it is not the first.
        let body = take(body, 0xA0).map_or(body, |(_, rest)| rest);
        let (_, body) = take(body, INTEGER)?; // Serial number.
        let (_, body) = take(body, SEQUENCE)?; // Algorithm, again.
        let (_, body) = take(body, SEQUENCE)?; // Issuer.
        let (validity, body) = take(body, SEQUENCE)?;
        let (subject, body) = take(body, SEQUENCE)?;
        let (_, mut body) = take(body, SEQUENCE)?; // Public key.
        let mut found = Certificate {
            algorithm,
            validity: validity_of(validity),
            common_name: common_name(subject),
            has_dns_names: false,
            has_addresses: false,
        };
        while let Some((tag, value, rest)) = next(body) {
            if tag == 0xA3 {
                found.extensions(take(value, SEQUENCE)?.0);
            }
            body = rest;
        }
        Some(found)
    }

    /// Whether this moment, in seconds since 1970, is in its validity.
    pub(super) fn is_valid_at(&self, now: u64) -> bool {
        self.validity.is_some_and(|(from, to)| (from..=to).contains(&now))
    }

    /// The hash that tls-server-end-point has for the algorithm: SHA-256 in place of weaker ones. RFC 5929, section 4.1.
    pub(super) fn signature_hash(&self) -> Option<Hash> {
        // pkcs-1 (1.2.840.113549.1.1) and ecdsa-with-… (1.2.840.10045.4).
        const PKCS1: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
        const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];
        if let Some(&[last]) = self.algorithm.strip_prefix(PKCS1) {
            return match last {
                4 | 5 | 11 => Some(Hash::Sha256), // With MD5, SHA-1, SHA-256.
                12 => Some(Hash::Sha384),
                13 => Some(Hash::Sha512),
                _ => None,
            };
        }
        match self.algorithm.strip_prefix(ECDSA)? {
            [1] | [3, 2] => Some(Hash::Sha256),
            [3, 3] => Some(Hash::Sha384),
            [3, 4] => Some(Hash::Sha512),
            _ => None,
        }
    }

    fn extensions(&mut self, mut list: &[u8]) {
        while let Some((_, extension, rest)) = next(list) {
            list = rest;
            // id-ce-subjectAltName, 2.5.29.17.
            let Some((&[0x55, 0x1D, 0x11], value)) = take(extension, OID) else { continue };
            let value = take(value, BOOLEAN).map_or(value, |(_, rest)| rest);
            let names = take(value, OCTET_STRING).and_then(|(value, _)| take(value, SEQUENCE));
            let mut names = names.map_or(&[][..], |(names, _)| names);
            while let Some((tag, _, rest)) = next(names) {
                self.has_dns_names |= tag == 0x82;
                self.has_addresses |= tag == 0x87;
                names = rest;
            }
        }
    }
}

/// The last common name of a subject.
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((_, mut set, rest)) = next(subject) {
        while let Some((_, attribute, others)) = next(set) {
            // id-at-commonName, 2.5.4.3. A NUL would make two names of one.
            if let Some((&[0x55, 0x04, 0x03], value)) = take(attribute, OID) {
                let text = next(value).and_then(|(_, text, _)| String::from_utf8(text.to_vec()).ok());
                found = text.filter(|text| !text.contains('\0'));
            }
            set = others;
        }
        subject = rest;
    }
    found
}

fn validity_of(bytes: &[u8]) -> Option<(u64, u64)> {
    let (tag, from, rest) = next(bytes)?;
    let from = time(tag, from)?;
    let (tag, to, _) = next(rest)?;
    Some((from, time(tag, to)?))
}

/// Seconds since 1970 of UTCTime (`YYMMDDhhmmssZ`) or GeneralizedTime (`YYYYMMDDhhmmssZ`).
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match tag {
        0x17 => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let mut fields = rest.chunks(2).map(number);
    let mut field = || fields.next().flatten();
    let (month, day, hour, minute, second) = (field()?, field()?, field()?, field()?, field()?);
    if year < 1970 {
        return Some(0);
    }
    // Days from 1970 in a calendar whose year begins in March, so that the leap day is its last.
    let (year, month) = if month <= 2 { (year.checked_sub(1)?, month + 9) } else { (year, month.checked_sub(3)?) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day.checked_sub(1)?;
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// An element of these contents, one after the other.
pub(super) fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let len: usize = contents.iter().map(|content| content.len()).sum();
    let mut bytes = vec![tag];
    match u8::try_from(len) {
        Ok(len @ ..0x80) => bytes.push(len),
        _ => {
            let digits = len.to_be_bytes();
            let digits: Vec<u8> = digits.into_iter().skip_while(|&digit| digit == 0).collect();
            bytes.push(0x80 | digits.len() as u8); // 8 at most
            bytes.extend(digits);
        }
    }
    contents.iter().for_each(|content| bytes.extend_from_slice(content));
    bytes
}

/// The value of the next element, which must have this tag, and what follows.
pub(super) fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, value, rest) = next(bytes)?;
    (found == tag).then_some((value, rest))
}

/// Tag and value of the next element, and what follows.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // No certificate is longer than three bytes can say.
        let count = usize::from(first & 0x7F);
        if !(1..=3).contains(&count) {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((tag, value, rest))
}
