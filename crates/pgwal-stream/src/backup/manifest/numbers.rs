//! Numbers as C's library reads them: what a manifest may write a number like.

/// The number at the start of `text`, and what follows it. Blanks and a sign may come before it, a minus counts from the end, and what is too
/// large is the largest; without digits it is 0, and all of `text` follows. C: `strtoull` with base 10.
pub(super) fn decimal(text: &[u8]) -> (u64, &[u8]) {
    integer(text, 10).unwrap_or((0, text))
}

/// The LSN at the start of `text`. C: `sscanf` with `%X/%X`.
pub(super) fn lsn(text: &[u8]) -> Option<u64> {
    let (high, rest) = integer(text, 16)?;
    let (low, _) = integer(rest.strip_prefix(b"/")?, 16)?;
    Some(u64::from(high as u32) << 32 | u64::from(low as u32)) // C keeps 32 bits of each
}

fn integer(text: &[u8], base: u32) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let (is_negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(base);
    let text = match text {
        [b'0', b'x' | b'X', rest @ ..] if base == 16 && rest.first().and_then(digit).is_some() => rest,
        _ => text,
    };
    let count = text.iter().take_while(|byte| digit(byte).is_some()).count();
    let (digits, rest) = text.split_at_checked(count).filter(|_| count > 0)?;
    let add = |value: u64, digit: u32| value.checked_mul(base.into())?.checked_add(digit.into());
    let value = digits.iter().filter_map(digit).try_fold(0, add);
    Some((value.map_or(u64::MAX, |value| if is_negative { value.wrapping_neg() } else { value }), rest))
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        u8::try_from(high? << 4 | low?).ok()
    };
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_c_reads_them() {
        for (text, number, rest) in [
            ("12", 12, ""),
            (" +12x", 12, "x"),
            ("-1", u64::MAX, ""),
            ("1e5", 1, "e5"),
            ("99999999999999999999", u64::MAX, ""),
            ("", 0, ""),
            ("x", 0, "x"),
            ("-", 0, "-"),
        ] {
            assert_eq!(decimal(text.as_bytes()), (number, rest.as_bytes()), "{text}");
        }
        assert_eq!(lsn(b"0/2000028"), Some(0x200_0028));
        assert_eq!(lsn(b" 1/0x2 and more"), Some(0x1_0000_0002));
        assert_eq!([lsn(b"0"), lsn(b"0/"), lsn(b"x/1"), lsn(b"0 /1")], [None; 4]);
        assert_eq!(unhex(b"00fF"), Some(vec![0, 255]));
        assert_eq!([unhex(b"0"), unhex(b"0g")], [None, None]);
    }
}
