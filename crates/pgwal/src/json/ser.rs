//! A lean serde serializer: JSON into a byte buffer, for the hot path of [`super::write_record`].
//!
//! serde_json checks room at every piece, looks every string through for characters to escape, and writes numbers and
//! hexadecimal digits one by one. Here small pieces go into an array whose index cannot leave it, keys and names of ours
//! are copied as they are, and numbers and digits are stored eight at once. What comes out is the same, and tests say so.

use std::fmt::{self, Write as _};

use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer};

use super::escape;
use crate::lsn::Lsn;
use crate::text::{Letters, PAIRS, ZEROES, eight_digits};
use crate::types::{Oid, RelFileLocator};

/// What a line is written to.
pub(super) struct Writer<'a> {
    /// An index up to [`LAST`] and the longest piece behind it are inside, whatever the index was made from.
    room: &'a mut Room,
    /// Bytes used in `room`.
    at: usize,
    /// What came before, of a line that the room does not hold.
    long: &'a mut Vec<u8>,
    relations: &'a mut Relations,
}

/// Room for a line of usual length.
pub(super) type Room = [u8; LAST + 1 + PIECE];
/// The last index that a piece can be written at.
const LAST: usize = 8191;
/// Bytes of the longest piece that is written without a look at the room left.
const PIECE: usize = 64;
/// With more than this in it, the room is emptied.
const FULL: usize = LAST / 2;

/// Relations written before, each at the place that its file number gives.
pub(super) type Relations = [Relation; RELATIONS];
/// How many are remembered.
pub(super) const RELATIONS: usize = 64;

/// The text of a relation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relation {
    rel: RelFileLocator,
    text: [u8; PIECE],
    /// Bytes of `text` that count; zero in an unused place.
    len: usize,
}

impl Relation {
    pub(super) const UNUSED: Relation = Relation { rel: RelFileLocator { spc: Oid(0), db: Oid(0), rel: Oid(0) }, text: [0; PIECE], len: 0 };
}

impl<'a> Writer<'a> {
    pub(super) fn new(room: &'a mut Room, long: &'a mut Vec<u8>, relations: &'a mut Relations) -> Writer<'a> {
        Writer { room, at: 0, long, relations }
    }

    /// Bytes in the room, which are the whole line unless a part of it went before.
    pub(super) fn end(self) -> usize {
        debug_assert!(self.at <= LAST);
        self.at & LAST
    }

    /// Appends a piece.
    // Always inlined, so that the length of a literal is a constant and its copy a few moves.
    #[inline(always)]
    pub(super) fn push(&mut self, piece: &[u8]) {
        debug_assert!(piece.len() <= PIECE);
        if let Some(room) = self.room[self.at & LAST..].get_mut(..piece.len()) {
            room.copy_from_slice(piece);
            self.at += piece.len();
        }
    }

    /// Appends the first `len` bytes of `piece`: a copy of fixed size is cheap, and the next piece overwrites what is too much.
    #[inline(always)]
    fn push_part<const N: usize>(&mut self, piece: &[u8; N], len: usize) {
        const { assert!(N <= PIECE) };
        if let Some(room) = self.room[self.at & LAST..].first_chunk_mut() {
            *room = *piece;
            self.at += len;
        }
    }

    /// Appends one of our own names, which have nothing to escape and fit in a piece.
    #[inline(always)]
    pub(super) fn name(&mut self, name: &str) {
        let name = name.as_bytes();
        // Two overlapping copies of fixed size in the place of a call.
        match name.len() {
            len @ 17..=32 => self.two_parts::<16>(name, len),
            len @ 9..=16 => self.two_parts::<8>(name, len),
            len @ 4..=8 => self.two_parts::<4>(name, len),
            _ => self.push(name),
        }
    }

    #[inline(always)]
    fn two_parts<const N: usize>(&mut self, name: &[u8], len: usize) {
        if let (Some(first), Some(last)) = (name.first_chunk::<N>(), name.last_chunk::<N>()) {
            self.push_part(first, len - N); // N <= len
            self.push_part(last, N);
        }
    }

    /// Moves what is in the room to what came before.
    #[cold]
    fn empty(&mut self) {
        debug_assert!(self.at <= LAST);
        self.long.extend_from_slice(&self.room[..self.at & LAST]);
        self.at = 0;
    }

    /// Makes sure of room for more pieces. A value of known size needs no look of its own.
    #[inline(always)]
    pub(super) fn make_room(&mut self) {
        if self.at > FULL {
            self.empty();
        }
    }

    /// Appends decimal digits.
    // How many there are is counted by comparing, which takes no turn at a branch and does not wait for the digits.
    #[inline(always)]
    pub(super) fn decimal(&mut self, value: u64) {
        if value > 9_999 {
            return self.many_digits(value);
        }
        let small = value as usize; // at most 9,999
        let pair = |value: usize| u32::from(u16::from_le_bytes(PAIRS[value % 100]));
        let digits = pair(small / 100) | pair(small) << 16;
        let leading = usize::from(value < 10) + usize::from(value < 100) + usize::from(value < 1000);
        self.push_part(&(digits >> (8 * leading as u32)).to_le_bytes(), 4 - leading);
    }

    #[inline(never)]
    fn many_digits(&mut self, value: u64) {
        const EIGHT: u64 = 100_000_000;
        if value >= EIGHT {
            self.decimal(value / EIGHT);
            return self.push(&(eight_digits((value % EIGHT) as u32) | ZEROES).to_le_bytes());
        }
        let digits = eight_digits(value as u32) | ZEROES; // value < EIGHT
        let leading = usize::from(value < 100_000) + usize::from(value < 1_000_000) + usize::from(value < 10_000_000);
        self.push_part(&(digits >> (8 * leading as u32)).to_le_bytes(), 8 - leading);
    }

    /// Appends an LSN, without quotes.
    #[inline]
    pub(super) fn lsn(&mut self, lsn: Lsn) {
        let high = Letters::Upper.digits(lsn.high());
        let len = 8 - (lsn.high().leading_zeros() as usize / 4).min(7); // zero has one digit
        self.push_part(&(high << (8 * (8 - len) as u32)).to_be_bytes(), len);
        self.push(b"/");
        self.push(&Letters::Upper.digits(lsn.low()).to_be_bytes());
    }

    /// Appends the fields of a relation. WAL names the same few relations again and again, so their text is remembered.
    #[inline]
    pub(super) fn relation(&mut self, rel: RelFileLocator) {
        let place = rel.rel.0 as usize % RELATIONS;
        match self.relations.get(place) {
            Some(known) if known.rel == rel && known.len > 0 => {
                let Relation { text, len, .. } = *known;
                self.push_part(&text, len);
            }
            _ => self.new_relation(rel, place),
        }
    }

    #[inline(never)]
    fn new_relation(&mut self, rel: RelFileLocator, place: usize) {
        let start = self.at;
        self.push(b"\"spc\":");
        self.decimal(rel.spc.0.into());
        self.push(b",\"db\":");
        self.decimal(rel.db.0.into());
        self.push(b",\"rel\":");
        self.decimal(rel.rel.0.into());
        let len = self.at - start; // 49 bytes at most: three numbers of up to ten digits, and 19 for their names
        if let (Some(known), Some(text)) = (self.relations.get_mut(place), self.room[start & LAST..].first_chunk()) {
            *known = Relation { rel, text: *text, len };
        }
    }

    /// Appends a string.
    #[inline]
    fn string(&mut self, text: &str) {
        self.push(b"\"");
        match text.as_bytes() {
            short if short.len() <= PIECE && is_plain(short) => self.name(text),
            _ => self.escaped(text),
        }
        self.push(b"\"");
    }

    /// Appends the inside of a string, escaped as [`super::to_writer`] does it.
    #[cold]
    fn escaped(&mut self, text: &str) {
        self.empty();
        let mut rest = text;
        while let Some((at, c)) = escape::first(rest) {
            let (before, after) = rest.split_at(at);
            self.escaped_for_json(before.as_bytes());
            self.long.extend_from_slice(escape::escape(c).as_bytes());
            rest = after.get(c.len_utf8()..).unwrap_or_default();
        }
        self.escaped_for_json(rest.as_bytes());
    }

    fn escaped_for_json(&mut self, text: &[u8]) {
        for run in text.chunk_by(|&a, &b| !needs_escape(a) && !needs_escape(b)) {
            match run {
                [byte] if needs_escape(*byte) => match byte {
                    b'"' | b'\\' => self.long.extend_from_slice(&[b'\\', *byte]),
                    b'\n' => self.long.extend_from_slice(b"\\n"),
                    b'\r' => self.long.extend_from_slice(b"\\r"),
                    b'\t' => self.long.extend_from_slice(b"\\t"),
                    0x08 => self.long.extend_from_slice(b"\\b"),
                    0x0C => self.long.extend_from_slice(b"\\f"),
                    other => self.long.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
                },
                run => self.long.extend_from_slice(run),
            }
        }
    }

    /// Appends bytes as a string of hexadecimal digits.
    #[inline]
    fn hexadecimal(&mut self, bytes: &[u8]) {
        self.push(b"\"");
        let (pieces, rest) = bytes.as_chunks::<HEX_PIECE>();
        for piece in pieces {
            self.make_room();
            self.push(&hex_digits(piece));
        }
        if !rest.is_empty() {
            let mut padded = [0; HEX_PIECE];
            padded[..rest.len()].copy_from_slice(rest); // as_chunks: fewer than HEX_PIECE
            self.push_part(&hex_digits(&padded), 2 * rest.len());
        }
        self.push(b"\"");
    }

    /// Appends what `core::fmt` makes of a value, as a string.
    fn display<T: fmt::Display + ?Sized>(&mut self, value: &T) -> fmt::Result {
        struct Escaped<'a, 'w>(&'a mut Writer<'w>);
        impl fmt::Write for Escaped<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.escaped(text);
                Ok(())
            }
        }
        self.push(b"\"");
        write!(Escaped(self), "{value}")?;
        self.push(b"\"");
        Ok(())
    }

    /// Appends `separator`, a key of ours and a colon.
    #[inline(always)]
    fn key(&mut self, separator: u8, key: &str) {
        self.make_room();
        self.push(&[separator, b'"']);
        self.name(key);
        self.push(b"\":");
    }
}

/// Whether nothing in `text` needs an escape, as far as ASCII without DEL tells. Eight bytes at once; the last eight overlap.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else { return !text.iter().any(|&byte| needs_escape(byte) || byte >= 0x7F) };
    let (words, _) = text.as_chunks::<8>();
    words.iter().chain([last]).fold(0, |found, word| found | escapes_in(u64::from_le_bytes(*word))) == 0
}

/// Not zero where one of eight bytes is a control character, a quote, a backslash, or not ASCII.
#[inline]
fn escapes_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    // The topmost bit of each byte that is less than `limit`, or of one above such a byte.
    let less = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let del = word ^ (ONES * 0x7F);
    (less(word, 0x20) | less(quote, 1) | less(backslash, 1) | less(del, 1) | word) & (ONES * 0x80)
}

#[inline]
fn needs_escape(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// Bytes whose digits are made at once.
const HEX_PIECE: usize = 16;

/// Two hexadecimal digits for each byte. Plain arithmetic, which the compiler does for all of them together.
#[inline]
fn hex_digits(bytes: &[u8; HEX_PIECE]) -> [u8; 2 * HEX_PIECE] {
    let digit = |nibble: u8| nibble + b'0' + if nibble > 9 { b'a' - b'9' - 1 } else { 0 };
    let mut digits = [0; 2 * HEX_PIECE];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    digits
}

/// An object or array that is being written.
pub(super) struct Compound<'a, 'w> {
    out: &'a mut Writer<'w>,
    /// What goes before the next entry: the opening bracket, later a comma.
    separator: u8,
}

impl<'a, 'w> Compound<'a, 'w> {
    #[inline(always)]
    fn new(out: &'a mut Writer<'w>, opening: u8) -> Compound<'a, 'w> {
        Compound { out, separator: opening }
    }

    #[inline(always)]
    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> fmt::Result {
        self.out.key(self.separator, key);
        self.separator = b',';
        value.serialize(&mut *self.out)
    }

    #[inline(always)]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        self.out.make_room();
        self.out.push(&[self.separator]);
        self.separator = b',';
        value.serialize(&mut *self.out)
    }

    #[inline(always)]
    fn close(self, closing: u8) -> fmt::Result {
        match self.separator {
            b',' => self.out.push(&[closing]),
            opening => self.out.push(&[opening, closing]),
        }
        Ok(())
    }
}

macro_rules! integers {
    ($($unsigned:ident $u:ty),*; $($signed:ident $i:ty),*) => {
        $(#[inline]
        fn $unsigned(self, value: $u) -> fmt::Result {
            self.decimal(value.into());
            Ok(())
        })*
        $(#[inline]
        fn $signed(self, value: $i) -> fmt::Result {
            if value < 0 {
                self.push(b"-");
            }
            self.decimal(value.unsigned_abs().into());
            Ok(())
        })*
    };
}

/// What does not come up.
type No = Impossible<(), fmt::Error>;

/// Errors have no text: the only ones are those of a type that JSON has no form for.
impl<'a, 'w> Serializer for &'a mut Writer<'w> {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Compound<'a, 'w>;
    type SerializeTuple = Compound<'a, 'w>;
    type SerializeTupleStruct = Compound<'a, 'w>;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = Compound<'a, 'w>;
    type SerializeStructVariant = No;

    integers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64;
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);

    /// Says no, so that bytes come as bytes ([`crate::wire::Bytes`]) and their digits are made here.
    fn is_human_readable(&self) -> bool {
        false
    }
    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> fmt::Result {
        self.hexadecimal(value);
        Ok(())
    }
    #[inline]
    fn serialize_bool(self, value: bool) -> fmt::Result {
        self.name(if value { "true" } else { "false" });
        Ok(())
    }
    fn serialize_f32(self, value: f32) -> fmt::Result {
        self.serialize_f64(value.into())
    }
    fn serialize_f64(self, value: f64) -> fmt::Result {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.push(number.to_string().as_bytes()),
            None => self.push(b"null"),
        }
        Ok(())
    }
    fn serialize_char(self, value: char) -> fmt::Result {
        self.string(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }
    #[inline]
    fn serialize_str(self, value: &str) -> fmt::Result {
        self.string(value);
        Ok(())
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> fmt::Result {
        self.display(value)
    }
    #[inline]
    fn serialize_none(self) -> fmt::Result {
        self.push(b"null");
        Ok(())
    }
    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> fmt::Result {
        value.serialize(self)
    }
    fn serialize_unit(self) -> fmt::Result {
        self.serialize_none()
    }
    fn serialize_unit_struct(self, _: &'static str) -> fmt::Result {
        self.serialize_none()
    }
    /// The variant's name: one of ours.
    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> fmt::Result {
        self.push(b"\"");
        self.name(variant);
        self.push(b"\"");
        Ok(())
    }
    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> fmt::Result {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, variant: &'static str, value: &T) -> fmt::Result {
        let mut object = Compound::new(self, b'{');
        object.entry(variant, value)?;
        object.close(b'}')
    }
    #[inline(always)]
    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a, 'w>, fmt::Error> {
        Ok(Compound::new(self, b'['))
    }
    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Compound<'a, 'w>, fmt::Error> {
        Ok(Compound::new(self, b'['))
    }
    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a, 'w>, fmt::Error> {
        Ok(Compound::new(self, b'['))
    }
    /// Not there: an array inside an object, which none of our types has.
    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<No, fmt::Error> {
        Err(fmt::Error)
    }
    /// Not there: keys that are not known before. Objects are structs, also those with others in them ([`crate::json_object`]).
    fn serialize_map(self, _: Option<usize>) -> Result<No, fmt::Error> {
        Err(fmt::Error)
    }
    #[inline(always)]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a, 'w>, fmt::Error> {
        Ok(Compound::new(self, b'{'))
    }
    /// Not there, as [`Serializer::serialize_tuple_variant`].
    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<No, fmt::Error> {
        Err(fmt::Error)
    }
}

macro_rules! arrays {
    ($($part:ident $method:ident),*) => {$(
        impl $part for Compound<'_, '_> {
            type Ok = ();
            type Error = fmt::Error;
            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
                self.element(value)
            }
            #[inline(always)]
            fn end(self) -> fmt::Result {
                self.close(b']')
            }
        }
    )*};
}
arrays!(SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field);

impl SerializeStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = fmt::Error;
    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> fmt::Result {
        self.entry(key, value)
    }
    #[inline(always)]
    fn end(self) -> fmt::Result {
        self.close(b'}')
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde::Serialize;

    use super::super::Json;

    /// What comes of `value`.
    pub(in super::super) fn written<T: Serialize>(value: &T) -> String {
        let mut json = Json::new();
        json.line(|out| value.serialize(out)).unwrap();
        String::from_utf8(json.take()).unwrap()
    }
}
