//! Heap tuples, without the fields that replay fills in. C: access/htup_details.h, access/heapam_xlog.h.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::format::WalFormat;
use crate::wire::{Bytes, Parsed, Wire, rest};

wire_flags! {
    /// State of a heap tuple. C: `t_infomask`, access/htup_details.h.
    pub struct Infomask: u16 {
        /// Has null attributes, so a null bitmap follows the header.
        HEAP_HASNULL = 0x0001,
        /// Has attributes of variable width.
        HEAP_HASVARWIDTH = 0x0002,
        /// Has attributes stored outside, in the TOAST table.
        HEAP_HASEXTERNAL = 0x0004,
        /// Has an object id; up to 11.
        HEAP_HASOID = 0x0008,
        /// xmax is a key-shared locker.
        HEAP_XMAX_KEYSHR_LOCK = 0x0010,
        /// The command id is a combo command id.
        HEAP_COMBOCID = 0x0020,
        /// xmax is an exclusive locker.
        HEAP_XMAX_EXCL_LOCK = 0x0040,
        /// xmax, if valid, is only a locker.
        HEAP_XMAX_LOCK_ONLY = 0x0080,
        /// xmin committed.
        HEAP_XMIN_COMMITTED = 0x0100,
        /// xmin is invalid or aborted; together with committed: frozen.
        HEAP_XMIN_INVALID = 0x0200,
        /// xmax committed.
        HEAP_XMAX_COMMITTED = 0x0400,
        /// xmax is invalid or aborted.
        HEAP_XMAX_INVALID = 0x0800,
        /// xmax is a multixact.
        HEAP_XMAX_IS_MULTI = 0x1000,
        /// The updated version of a row.
        HEAP_UPDATED = 0x2000,
        /// Moved to another place by a VACUUM FULL before 9.0.
        HEAP_MOVED_OFF = 0x4000,
        /// Moved from another place by a VACUUM FULL before 9.0.
        HEAP_MOVED_IN = 0x8000,
    }
}

wire_flags! {
    /// The flag bits of [`Infomask2`]. C: `t_infomask2`, access/htup_details.h.
    pub struct Infomask2Flags: u16 {
        /// The tuple was updated and its key changed, or it was deleted.
        HEAP_KEYS_UPDATED = 0x2000,
        /// The tuple was updated on its page, without new index entries.
        HEAP_HOT_UPDATED = 0x4000,
        /// No index entry points to the tuple.
        HEAP_ONLY_TUPLE = 0x8000,
    }
}

wire_newtype! {
    /// Number of attributes and flags of a heap tuple. C: `t_infomask2`, access/htup_details.h.
    pub struct Infomask2(u16);
}

impl Infomask2 {
    /// Number of attributes. C: `HEAP_NATTS_MASK`.
    pub const fn natts(self) -> u16 {
        self.0 & 0x07FF
    }

    /// Everything but the number of attributes.
    pub const fn flags(self) -> Infomask2Flags {
        Infomask2Flags(self.0 & !0x07FF)
    }
}
impl Serialize for Infomask2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Infomask2", 2)?;
        fields.serialize_field("natts", &self.natts())?;
        fields.serialize_field("flags", &self.flags())?;
        fields.end()
    }
}

wire_struct! {
    /// The fields of a heap tuple's header that replay cannot work out. C: `xl_heap_header`, access/heapam_xlog.h, 5 bytes.
    pub struct HeapTupleHeader("xl_heap_header") {
        /// Number of attributes and flags.
        infomask2: Infomask2,
        /// State of the tuple.
        infomask: Infomask,
        /// Bytes from the start of the tuple to its attributes: header, null bitmap, object id (up to 11) and padding.
        hoff: u8,
    }
}

/// A heap tuple without the 23 bytes that its header has on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapTuple<'a> {
    /// What the WAL keeps of the header.
    pub header: HeapTupleHeader,
    /// What follows the header on the page: null bitmap, padding, object id (up to 11), attributes.
    pub data: Bytes<'a>,
}
json_object!(HeapTuple<'_> { ..header, data });

/// Bytes of a heap tuple's fixed header on the page. C: `SizeofHeapTupleHeader`.
const HEAP_TUPLE_HEADER: usize = 23;

impl<'a> HeapTuple<'a> {
    /// Reads a tuple that reaches to the end of `input`.
    ///
    /// # Errors
    /// Not even the header is there.
    #[inline]
    pub fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, HeapTuple<'a>> {
        let (input, header) = HeapTupleHeader::read(input, fmt)?;
        let (input, data) = rest(input)?;
        Ok((input, HeapTuple { header, data: Bytes(data) }))
    }

    /// Appends the tuple to `out`.
    pub fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.header.write(fmt, out);
        out.extend_from_slice(&self.data);
    }

    /// The null bitmap, one bit for each attribute, set where it is not null; `None` where no attribute is null (or the
    /// bytes are not there).
    pub fn null_bitmap(&self) -> Option<&'a [u8]> {
        let len = usize::from(self.header.infomask2.natts()).div_ceil(8);
        self.data.0.get(..len).filter(|_| self.header.infomask.contains(Infomask::HEAP_HASNULL))
    }

    /// The attributes; `None` where the header reaches beyond the tuple. Of an update, what prefix and suffix leave of them.
    pub fn attributes(&self) -> Option<&'a [u8]> {
        let start = usize::from(self.header.hoff).checked_sub(HEAP_TUPLE_HEADER)?;
        self.data.0.get(start..)
    }
}
