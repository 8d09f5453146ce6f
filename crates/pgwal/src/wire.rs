//! Reading and writing fields in their on-disk order.
//!
//! Every field type implements [`Wire`]; [`wire_struct!`](crate::wire_struct) turns a list of fields into a struct with its reader
//! and writer.
//! WAL is written in the byte order of its machine; this crate reads little-endian WAL (x86-64, ARM) and says so of the other kind.
//! nom does the bounds checks; its types stay inside this file.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use nom::Parser;
use nom::bytes::complete::take;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::format::WalFormat;

/// Bytes that are left, and the value read before them.
pub type Parsed<'a, T> = Result<(&'a [u8], T), WireError>;

/// Why a field could not be read: only what a low-level reader knows. [`crate::Record::parse_all`] adds the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Bytes that were left where the field should start.
    pub left: usize,
    /// C struct and field, `xl_heap_insert.offnum`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// So many more bytes are needed than there are.
    Truncated {
        /// Bytes missing.
        needed: usize,
    },
    /// A value that the format does not allow.
    Invalid {
        /// What the format allows.
        expected: &'static str,
        /// The value.
        found: u64,
    },
}

impl WireError {
    /// A value read from `input` that the format does not allow.
    pub fn invalid(input: &[u8], field: &'static str, expected: &'static str, found: u64) -> WireError {
        WireError { left: input.len(), field, problem: Problem::Invalid { expected, found } }
    }

    /// `input` has fewer than `len` bytes.
    pub fn truncated(input: &[u8], field: &'static str, len: usize) -> WireError {
        WireError { left: input.len(), field, problem: Problem::Truncated { needed: len.saturating_sub(input.len()) } }
    }

    /// Names the field, unless a reader further down already did.
    pub fn in_field(mut self, field: &'static str) -> WireError {
        if self.field.is_empty() {
            self.field = field;
        }
        self
    }
}

/// A value with a fixed place in the on-disk order.
pub trait Wire<'a>: Sized {
    /// Whether the value says nothing, so that JSON leaves it out.
    const PADDING: bool = false;

    /// Reads the value from the front of `input`.
    ///
    /// # Errors
    /// Too few bytes, or a value that the format does not allow.
    fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self>;

    /// Appends the value's bytes to `out`: the inverse of [`Wire::read`].
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>);
}

/// A value whose size does not depend on its bytes, so that arrays of it can be measured before they are read.
pub trait FixedSize {
    /// Bytes on disk.
    fn size(fmt: WalFormat) -> usize;
}

/// The next `len` bytes.
///
/// # Errors
/// Fewer than `len` bytes are left.
#[inline]
pub fn bytes<'a>(input: &'a [u8], len: usize, field: &'static str) -> Parsed<'a, &'a [u8]> {
    match take::<usize, &[u8], nom::error::Error<&[u8]>>(len).parse_complete(input) {
        Ok((rest, taken)) => Ok((rest, taken)),
        Err(_) => Err(WireError::truncated(input, field, len)),
    }
}

/// Everything that is left: for open-ended tails.
///
/// # Errors
/// None; the form is that of the other readers.
pub fn rest(input: &[u8]) -> Parsed<'_, &[u8]> {
    Ok((&[], input))
}

/// Skips zero or more bytes up to a multiple of `to`, counted from `start`, the slice that `input` is the tail of.
///
/// # Errors
/// The padding is cut short.
pub fn align<'a>(start: &[u8], input: &'a [u8], to: usize, field: &'static str) -> Parsed<'a, ()> {
    let read = start.len().saturating_sub(input.len());
    let (input, _) = bytes(input, read.next_multiple_of(to) - read, field)?;
    Ok((input, ()))
}

/// A NUL-terminated string, without the NUL.
///
/// # Errors
/// No NUL is left.
pub fn c_string<'a>(input: &'a [u8], field: &'static str) -> Parsed<'a, Bytes<'a>> {
    match input.iter().position(|&b| b == 0) {
        Some(len) => {
            let (input, text) = bytes(input, len, field)?;
            let (input, _) = bytes(input, 1, field)?;
            Ok((input, Bytes(text)))
        }
        None => Err(WireError::truncated(input, field, input.len().saturating_add(1))),
    }
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Wire<'_> for $int {
            #[inline]
            fn read(input: &[u8], _: WalFormat) -> Parsed<'_, Self> {
                const SIZE: usize = size_of::<$int>();
                let (input, taken) = bytes(input, SIZE, "")?;
                let mut raw = [0; SIZE];
                raw.copy_from_slice(taken); // `take` gave exactly SIZE bytes
                Ok((input, <$int>::from_le_bytes(raw)))
            }
            #[inline]
            fn write(&self, _: WalFormat, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
        impl FixedSize for $int {
            fn size(_: WalFormat) -> usize {
                size_of::<$int>()
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// C `bool`: one byte. Servers write 0 or 1; they take anything else for true, so the byte is kept. JSON: `true` or `false`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CBool(pub u8);

impl CBool {
    /// Whether it is true.
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}
impl fmt::Debug for CBool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => self.get().fmt(f),
            other => other.fmt(f),
        }
    }
}
impl From<bool> for CBool {
    fn from(value: bool) -> CBool {
        CBool(value.into())
    }
}
impl Serialize for CBool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(self.get())
    }
}
impl Wire<'_> for CBool {
    #[inline]
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, byte) = u8::read(input, fmt)?;
        Ok((input, CBool(byte)))
    }
    fn write(&self, _: WalFormat, out: &mut Vec<u8>) {
        out.push(self.0);
    }
}
impl FixedSize for CBool {
    fn size(_: WalFormat) -> usize {
        1
    }
}

/// Padding that C's alignment puts between fields or at the end of a struct.
///
/// Usually zero, but the server does not promise it, so the bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pad<const N: usize>(pub [u8; N]);

impl<const N: usize> Default for Pad<N> {
    fn default() -> Self {
        Pad([0; N])
    }
}
impl<const N: usize> Wire<'_> for Pad<N> {
    const PADDING: bool = true;

    #[inline]
    fn read(input: &[u8], _: WalFormat) -> Parsed<'_, Self> {
        let (input, taken) = bytes(input, N, "")?;
        let mut raw = [0; N];
        raw.copy_from_slice(taken); // `bytes` gave exactly N
        Ok((input, Pad(raw)))
    }
    fn write(&self, _: WalFormat, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}
/// As hexadecimal digits, where it is shown at all.
impl<const N: usize> Serialize for Pad<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(&self.0).serialize(serializer)
    }
}
impl<const N: usize> FixedSize for Pad<N> {
    fn size(_: WalFormat) -> usize {
        N
    }
}

macro_rules! gate {
    ($(#[$doc:meta])* $gate:ident, $present:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $gate<const MAJOR: u8, T>(pub Option<T>);

        impl<'a, const MAJOR: u8, T: Wire<'a>> Wire<'a> for $gate<MAJOR, T> {
            const PADDING: bool = T::PADDING;

            #[inline]
            fn read(input: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
                let present: fn(u8, u8) -> bool = $present;
                if !present(fmt.major, MAJOR) {
                    return Ok((input, $gate(None)));
                }
                let (input, value) = T::read(input, fmt)?;
                Ok((input, $gate(Some(value))))
            }
            /// A value that this major does not have is left out.
            fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
                let present: fn(u8, u8) -> bool = $present;
                if let (true, Some(value)) = (present(fmt.major, MAJOR), &self.0) {
                    value.write(fmt, out);
                }
            }
        }
        impl<const MAJOR: u8, T: FixedSize> FixedSize for $gate<MAJOR, T> {
            fn size(fmt: WalFormat) -> usize {
                let present: fn(u8, u8) -> bool = $present;
                if present(fmt.major, MAJOR) { T::size(fmt) } else { 0 }
            }
        }
        impl<const MAJOR: u8, T> Deref for $gate<MAJOR, T> {
            type Target = Option<T>;
            fn deref(&self) -> &Option<T> {
                &self.0
            }
        }
        impl<const MAJOR: u8, T: Serialize> Serialize for $gate<MAJOR, T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    };
}
gate! {
    /// A field that exists from `MAJOR` on; `None` in older WAL.
    Since, |major, first| major >= first
}
gate! {
    /// A field that existed up to and including `MAJOR`; `None` in newer WAL.
    Until, |major, last| major <= last
}

/// Borrowed bytes whose structure is not ours (tuple data, page images, strings in the database's encoding). JSON: hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0
    }
}
impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(self.0))
    }
}
impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A serializer that takes bytes makes their digits itself: most of the JSON of some records.
        if serializer.is_human_readable() { serializer.collect_str(&Hex(self.0)) } else { serializer.serialize_bytes(self.0) }
    }
}

/// Bytes shown as hexadecimal digits.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Borrowed text, as JSON a string (bytes that are not UTF-8 are replaced there; the bytes themselves are kept).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Str<'a>(pub &'a [u8]);

impl fmt::Debug for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}
impl Serialize for Str<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

/// Reads a part that is there only where `present` says so.
///
/// # Errors
/// What `read` says.
#[inline]
pub fn optional<'a, T>(input: &'a [u8], present: bool, read: impl FnOnce(&'a [u8]) -> Parsed<'a, T>) -> Parsed<'a, Option<T>> {
    if !present {
        return Ok((input, None));
    }
    read(input).map(|(input, value)| (input, Some(value)))
}

/// The first `count` values in `left`. One that its type refuses ends them: a [`List`] has none, and [`array`] is used with types that
/// accept every bit pattern.
#[inline]
fn values<'a, T: Wire<'a>>(mut left: &'a [u8], count: usize, fmt: WalFormat) -> impl Iterator<Item = T> + use<'a, T> {
    (0..count).map_while(move |_| {
        let (rest, value) = T::read(left, fmt).ok()?;
        left = rest;
        Some(value)
    })
}

/// An array of fixed-size values, borrowed as bytes and read on demand: a count from disk costs nothing until its bytes are there.
#[derive(Clone, Copy)]
pub struct Array<'a, T> {
    raw: &'a [u8],
    count: usize,
    fmt: WalFormat,
    of: PhantomData<T>,
}

/// Reads an array of `count` values.
///
/// # Errors
/// Fewer bytes are left than `count` values take.
pub fn array<'a, T: Wire<'a> + FixedSize>(
    input: &'a [u8],
    count: impl TryInto<usize>,
    fmt: WalFormat,
    field: &'static str,
) -> Parsed<'a, Array<'a, T>> {
    let count = count.try_into().unwrap_or(usize::MAX);
    let len = count.saturating_mul(T::size(fmt));
    let (input, raw) = bytes(input, len, field)?;
    Ok((input, Array { raw, count, fmt, of: PhantomData }))
}

impl<'a, T: Wire<'a> + FixedSize> Array<'a, T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        values(self.raw, self.count, self.fmt)
    }

    /// Value number `index`.
    pub fn get(&self, index: usize) -> Option<T> {
        let start = index.checked_mul(T::size(self.fmt))?;
        self.raw.get(start..).and_then(|at| T::read(at, self.fmt).ok()).map(|(_, value)| value)
    }

    /// The bytes on disk.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Appends the bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw);
    }
}
impl<'a, T: Wire<'a> + FixedSize + PartialEq> PartialEq for Array<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}
impl<'a, T: Wire<'a> + FixedSize + fmt::Debug> fmt::Debug for Array<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
impl<'a, T: Wire<'a> + FixedSize + Serialize> Serialize for Array<'a, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Values of varying size, one after the other, borrowed as bytes and read on demand.
///
/// All of them were read once when the list was, so a list holds no value that does not parse.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    raw: &'a [u8],
    count: usize,
    fmt: WalFormat,
    of: PhantomData<T>,
}

/// Reads a list of `count` values; each takes at least one byte.
///
/// # Errors
/// What reading a value says.
pub fn list<'a, T: Wire<'a>>(input: &'a [u8], count: impl TryInto<usize>, fmt: WalFormat, field: &'static str) -> Parsed<'a, List<'a, T>> {
    list_until(input, count, fmt, field, |_| false)
}

/// Reads a list of `count` values, or fewer where one of them `is_last`.
///
/// # Errors
/// What reading a value says.
pub fn list_until<'a, T: Wire<'a>>(
    input: &'a [u8],
    count: impl TryInto<usize>,
    fmt: WalFormat,
    field: &'static str,
    is_last: impl Fn(&T) -> bool,
) -> Parsed<'a, List<'a, T>> {
    let limit = count.try_into().unwrap_or(usize::MAX);
    let (mut left, mut count) = (input, 0);
    while count < limit {
        let (rest, value) = T::read(left, fmt).map_err(|e| e.in_field(field))?;
        left = rest;
        count += 1; // at most the number of bytes
        if is_last(&value) {
            break;
        }
    }
    let raw = input.get(..input.len().saturating_sub(left.len())).unwrap_or_default();
    Ok((left, List { raw, count, fmt, of: PhantomData }))
}

/// Reads values up to the end of `input`.
///
/// # Errors
/// What reading a value says.
pub fn list_all<'a, T: Wire<'a>>(input: &'a [u8], fmt: WalFormat) -> Result<List<'a, T>, WireError> {
    let (mut left, mut count) = (input, 0);
    while !left.is_empty() {
        (left, _) = T::read(left, fmt)?;
        count += 1; // at most the number of bytes
    }
    Ok(List { raw: input, count, fmt, of: PhantomData })
}

impl<'a, T: Wire<'a>> List<'a, T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        values(self.raw, self.count, self.fmt)
    }

    /// The bytes on disk.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Appends the bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw);
    }
}
impl<'a, T: Wire<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}
impl<'a, T: Wire<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
impl<'a, T: Wire<'a> + Serialize> Serialize for List<'a, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Turns a list of fields, in on-disk order, into a struct with its reader, writer, size and JSON.
///
/// The name in parentheses is the C struct, which errors name.
#[macro_export]
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident ($c:literal) { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl $crate::wire::Fields for $name {
            #[inline]
            fn field_count(&self) -> usize {
                0 $(+ usize::from(!<$ty as $crate::wire::Wire>::PADDING))*
            }
            #[inline]
            fn serialize_fields<S: serde::ser::SerializeStruct>(&self, out: &mut S) -> ::std::result::Result<(), S::Error> {
                $(if !<$ty as $crate::wire::Wire>::PADDING {
                    out.serialize_field(stringify!($field), &self.$field)?;
                })*
                Ok(())
            }
        }
        $crate::json_object!(@serialize $name);

        impl $crate::wire::Wire<'_> for $name {
            #[inline]
            fn read(input: &[u8], fmt: $crate::format::WalFormat) -> $crate::wire::Parsed<'_, Self> {
                $(let (input, $field) = <$ty as $crate::wire::Wire>::read(input, fmt)
                    .map_err(|e| e.in_field(concat!($c, ".", stringify!($field))))?;)*
                Ok((input, $name { $($field),* }))
            }
            #[inline]
            fn write(&self, fmt: $crate::format::WalFormat, out: &mut Vec<u8>) {
                let _ = (fmt, &out);
                $($crate::wire::Wire::write(&self.$field, fmt, out);)*
            }
        }
        impl $crate::wire::FixedSize for $name {
            #[inline]
            fn size(fmt: $crate::format::WalFormat) -> usize {
                let _ = fmt;
                0 $(+ <$ty as $crate::wire::FixedSize>::size(fmt))*
            }
        }
    };
}

/// JSON of a struct: its fields, in the place of a field written `..head` those of the struct in it, and for `gid(name)` what the
/// method `name` gives.
///
/// serde's `flatten` does the same through a map, whose keys are strings like any other; here they stay constants.
#[macro_export]
macro_rules! json_object {
    ($name:ident $(<$life:lifetime>)? { $($(..$part:ident)? $($field:ident $(($method:ident))?)?),* }) => {
        impl $crate::wire::Fields for $name $(<$life>)? {
            #[inline]
            fn field_count(&self) -> usize {
                0 $($(+ $crate::wire::Fields::field_count(&self.$part))? $(+ $crate::json_object!(@one $field))?)*
            }
            #[inline]
            fn serialize_fields<S: serde::ser::SerializeStruct>(&self, out: &mut S) -> ::std::result::Result<(), S::Error> {
                $(
                    $($crate::wire::Fields::serialize_fields(&self.$part, out)?;)?
                    $($crate::json_object!(@field out, self, $field $($method)?)?;)?
                )*
                Ok(())
            }
        }
        $crate::json_object!(@serialize $name $(<$life>)?);
    };
    (@one $field:ident) => { 1 };
    (@field $out:ident, $self:ident, $field:ident) => {
        $out.serialize_field(stringify!($field), &$self.$field)
    };
    (@field $out:ident, $self:ident, $field:ident $method:ident) => {
        $out.serialize_field(stringify!($field), &$self.$method())
    };
    (@serialize $name:ident $(<$life:lifetime>)?) => {
        impl serde::Serialize for $name $(<$life>)? {
            #[inline]
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct;
                let mut out = serializer.serialize_struct(stringify!($name), $crate::wire::Fields::field_count(self))?;
                $crate::wire::Fields::serialize_fields(self, &mut out)?;
                out.end()
            }
        }
    };
}

/// What JSON shows as fields: of an object of their own, or among those of another.
pub trait Fields {
    /// How many there are.
    fn field_count(&self) -> usize;

    /// Writes the fields.
    ///
    /// # Errors
    /// What the serializer says.
    fn serialize_fields<S: SerializeStruct>(&self, out: &mut S) -> Result<(), S::Error>;
}
impl<T: Fields> Fields for Option<T> {
    #[inline]
    fn field_count(&self) -> usize {
        self.as_ref().map_or(0, Fields::field_count)
    }
    #[inline]
    fn serialize_fields<S: SerializeStruct>(&self, out: &mut S) -> Result<(), S::Error> {
        self.as_ref().map_or(Ok(()), |fields| fields.serialize_fields(out))
    }
}

/// Gives an integer from the WAL a type of its own.
#[macro_export]
macro_rules! wire_newtype {
    ($($(#[$meta:meta])* pub struct $name:ident($int:ty);)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $crate::wire::Wire<'_> for $name {
            #[inline]
            fn read(input: &[u8], fmt: $crate::format::WalFormat) -> $crate::wire::Parsed<'_, Self> {
                let (input, value) = <$int as $crate::wire::Wire>::read(input, fmt)?;
                Ok((input, $name(value)))
            }
            #[inline]
            fn write(&self, fmt: $crate::format::WalFormat, out: &mut Vec<u8>) {
                $crate::wire::Wire::write(&self.0, fmt, out);
            }
        }
        impl $crate::wire::FixedSize for $name {
            fn size(_: $crate::format::WalFormat) -> usize {
                size_of::<$int>()
            }
        }
    )*};
}

/// A set of flag bits: unknown bits are kept, known ones have names. JSON: the list of names, unknown bits as one `"0x80"`.
#[macro_export]
macro_rules! wire_flags {
    ($(#[$meta:meta])* pub struct $name:ident: $int:ty { $($(#[$fmeta:meta])* $flag:ident = $bits:expr),* $(,)? }) => {
        $crate::wire_newtype! { $(#[$meta])* pub struct $name($int); }

        impl $name {
            $($(#[$fmeta])* pub const $flag: $name = $name($bits);)*
            /// Names and bits of the known flags, in the order of the C definitions.
            pub const NAMES: &'static [(&'static str, $int)] = &[$((stringify!($flag), $bits)),*];

            /// Whether all bits of `flag` are set.
            #[inline]
            pub const fn contains(self, flag: $name) -> bool {
                self.0 & flag.0 == flag.0
            }

            /// Whether any bit of `flags` is set.
            #[inline]
            pub const fn intersects(self, flags: $name) -> bool {
                self.0 & flags.0 != 0
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq;
                let mut names = serializer.serialize_seq(None)?;
                let mut unknown = self.0;
                // Flag by flag and not in a loop: most records have flags, and each one's name and its length are constants so.
                $(if $bits != 0 && unknown & $bits == $bits {
                    names.serialize_element(&$crate::wire::Name(stringify!($flag)))?;
                    unknown &= !$bits;
                })*
                if unknown != 0 {
                    names.serialize_element(&format_args!("0x{unknown:X}"))?;
                }
                names.end()
            }
        }
    };
}

/// A name of ours: unlike any string, it has nothing to escape.
#[doc(hidden)]
pub struct Name(pub &'static str);

impl Serialize for Name {
    #[inline(always)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant("", 0, self.0)
    }
}
