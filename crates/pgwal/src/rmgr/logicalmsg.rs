//! Logical decoding messages, resource manager 21. C: replication/message.h; text: rmgrdesc/logicalmsgdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::{Text, hex2};
use crate::types::Oid;
use crate::wire::{Bytes, CBool, Pad, Parsed, Str, Wire, WireError, bytes};

/// Record types. C: `XLOG_LOGICAL_MESSAGE`.
pub const OPCODES: &[Opcode] = &[op(0x00, "MESSAGE", Majors::ALL)];

wire_struct! {
    /// Fixed part of MESSAGE, 24 bytes. C: `xl_logical_message`.
    pub struct MessageHead("xl_logical_message") {
        /// Database that it was written in. C: `dbId`.
        db: Oid,
        /// Whether it counts only if its transaction commits.
        transactional: CBool,
        /// Padding.
        pad: Pad<3>,
        /// Bytes of the prefix, its NUL included.
        prefix_size: u64,
        /// Bytes of the message.
        message_size: u64,
    }
}

/// A message for logical decoding; replay ignores it. C: `xl_logical_message`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    /// Fixed part.
    pub head: MessageHead,
    /// Says whom the message is for; on disk a NUL follows.
    pub prefix: Str<'a>,
    /// The message: any bytes.
    pub message: Bytes<'a>,
}
json_object!(Message<'_> { ..head, prefix, message });

impl<'a> Wire<'a> for Message<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, head) = MessageHead::read(i, fmt)?;
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX); // more than memory holds is more than is there
        let (rest, prefix) = bytes(i, size(head.prefix_size), "xl_logical_message.message (prefix)")?;
        let Some((&0, prefix)) = prefix.split_last() else {
            return Err(WireError::invalid(i, "xl_logical_message.prefix_size", "a prefix that ends in NUL", head.prefix_size));
        };
        let (rest, message) = bytes(rest, size(head.message_size), "xl_logical_message.message")?;
        Ok((rest, Message { head, prefix: Str(prefix), message: Bytes(message) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.head.write(fmt, out);
        out.extend_from_slice(self.prefix.0);
        out.push(0);
        out.extend_from_slice(self.message.0);
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// MESSAGE.
    Message(Message<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let op = match rec.info().opcode() {
        0x00 => Op::Message(rec.parse_all("xl_logical_message", rec.main, |i| Message::read(i, fmt))?),
        _ => return Ok(None),
    };
    rec.only_block_data("xl_logical_message", &[])?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Message(message) => message.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        let Op::Message(Message { head, prefix, message }) = self;
        if !fmt.since(14) {
            let kind = if head.transactional.get() { "transactional" } else { "nontransactional" };
            return put!(out, kind, " message size ", head.message_size, " bytes");
        }
        let kind = if head.transactional.get() { "transactional" } else { "non-transactional" };
        // `%s` ends at the first NUL, wherever the prefix ends.
        let prefix = prefix.0.split(|&byte| byte == 0).next().unwrap_or_default();
        put!(out, kind, ", prefix \"", Str(prefix), "\"; payload (", head.message_size, " bytes): ");
        for (at, &byte) in message.iter().enumerate() {
            put!(out, if at == 0 { "" } else { " " }, hex2(byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    fn message(transactional: u8, prefix: &[u8], message: &[u8]) -> Vec<u8> {
        let mut main = le![5u32, transactional, 0x55u8, 0u16, prefix.len() as u64, message.len() as u64];
        main.extend([prefix, message].concat());
        main
    }

    fn rec(major: u8, main: &[u8]) -> Rec<'_> {
        Rec { major, rmid: 21, main, ..Rec::default() }
    }

    #[test]
    fn text_of_each_major() {
        let one = message(1, b"m\0", b"hi\xFF");
        rec(10, &one).check("transactional message size 3 bytes", &[]);
        rec(13, &one).check("transactional message size 3 bytes", &[]);
        rec(14, &one).check("transactional, prefix \"m\"; payload (3 bytes): 68 69 FF", &[]);
        let none = message(0, b"\0", b"");
        rec(13, &none).check("nontransactional message size 0 bytes", &[]);
        rec(19, &none).check("non-transactional, prefix \"\"; payload (0 bytes): ", &[]);
        rec(19, &message(0, b"a\0b\0", b"")).check("non-transactional, prefix \"a\"; payload (0 bytes): ", &[]);
    }

    #[test]
    fn sizes_are_checked_before_use() {
        let error = |main: &[u8]| rec(15, main).parse().unwrap_err().kind().to_string();
        for prefix in [&b""[..], b"m"] {
            let expected = "xl_logical_message.prefix_size: expected a prefix that ends in NUL";
            assert!(error(&message(0, prefix, b"")).starts_with(expected));
        }
        let huge = le![5u32, 1u32, u64::MAX, u64::MAX, 0u64];
        assert!(error(&huge).starts_with("xl_logical_message.message (prefix)"));
    }
}
