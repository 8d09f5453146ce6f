//! Index tuples, as the index access methods write them into their records. C: access/itup.h.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::format::WalFormat;
use crate::types::ItemPointer;
use crate::wire::{Bytes, Parsed, Wire, WireError, bytes};

wire_newtype! {
    /// Size and flags of an index tuple. JSON: the size, and the flags by name. C: `t_info`.
    pub struct IndexTupleInfo(u16);
}

impl IndexTupleInfo {
    /// Bytes of the whole tuple. C: `IndexTupleSize`.
    pub const fn size(self) -> u16 {
        self.0 & 0x1FFF
    }

    /// A bit that each access method uses as it likes. C: `INDEX_AM_RESERVED_BIT`.
    pub const fn am_reserved(self) -> bool {
        self.0 & 0x2000 != 0
    }

    /// Some attribute has no fixed width. C: `IndexTupleHasVarwidths`.
    pub const fn has_varwidths(self) -> bool {
        self.0 & 0x4000 != 0
    }

    /// Some attribute is null; a bitmap follows the header, but not in nodes of SP-GiST. C: `IndexTupleHasNulls`.
    pub const fn has_nulls(self) -> bool {
        self.0 & 0x8000 != 0
    }
}

impl Serialize for IndexTupleInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut info = serializer.serialize_struct("IndexTupleInfo", 4)?;
        info.serialize_field("size", &self.size())?;
        info.serialize_field("am_reserved", &self.am_reserved())?;
        info.serialize_field("has_varwidths", &self.has_varwidths())?;
        info.serialize_field("has_nulls", &self.has_nulls())?;
        info.end()
    }
}

/// An index tuple. C: `IndexTupleData`, 8 bytes and what follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IndexTuple<'a> {
    /// The heap tuple, or what the access method keeps in its place. C: `t_tid`.
    pub tid: ItemPointer,
    /// Size and flags.
    pub info: IndexTupleInfo,
    /// Null bitmap and attribute values with their padding: `info.size()` less the header's 8 bytes.
    pub data: Bytes<'a>,
}

impl IndexTuple<'_> {
    const HEADER: usize = 8;
}

impl<'a> Wire<'a> for IndexTuple<'a> {
    #[inline]
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, tid) = ItemPointer::read(input, fmt).map_err(|e| e.in_field("IndexTupleData.t_tid"))?;
        let (i, info) = IndexTupleInfo::read(i, fmt).map_err(|e| e.in_field("IndexTupleData.t_info"))?;
        let Some(len) = usize::from(info.size()).checked_sub(Self::HEADER) else {
            return Err(WireError::invalid(input, "IndexTupleData.t_info", "a size of at least 8", info.size().into()));
        };
        let (i, data) = bytes(i, len, "IndexTupleData")?;
        Ok((i, IndexTuple { tid, info, data: Bytes(data) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.tid.write(fmt, out);
        self.info.write(fmt, out);
        out.extend_from_slice(&self.data);
    }
}
