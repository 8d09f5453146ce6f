//! Transaction, resource manager 1. C: access/xact.h; text: rmgrdesc/xactdesc.c.

use std::marker::PhantomData;

use serde::Serialize;

use super::{Body, Describe, Opcode};
use crate::error::Result;
use crate::format::WalFormat;
use crate::record::Record;
use crate::text::Text;

/// Bits of the info byte that tell the record types apart. C: `XLOG_XACT_OPMASK`.
pub const OPMASK: u8 = 0x70;

/// Record types.
pub const OPCODES: &[Opcode] = &[];

/// A record of this resource manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// Placeholder until the real ones are written.
    #[serde(skip)]
    None(PhantomData<&'a ()>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(_rec: &Record<'r>, _fmt: WalFormat) -> Result<Option<Op<'r>>> {
    Ok(None)
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, _fmt: WalFormat, _body: &mut Body) {}
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, _out: &mut Text) {}
}
