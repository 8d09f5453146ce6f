//! Lists inside descriptions, as the heap and B-tree managers write them from 16 on. C: rmgrdesc/rmgrdesc_utils.c.

use crate::text::{Put, Text};

/// `" [1, 2, 3]"`, with `element` writing each value. C: `array_desc`.
#[inline]
pub(super) fn put_list<T>(out: &mut Text, values: impl Iterator<Item = T>, element: impl FnMut(&mut Text, T)) {
    put!(out, " [");
    put_elements(out, values, element);
    put!(out, "]");
}

/// `"1, 2, 3"`: what stands between the brackets.
#[inline]
pub(super) fn put_elements<T>(out: &mut Text, values: impl Iterator<Item = T>, mut element: impl FnMut(&mut Text, T)) {
    for (i, value) in values.enumerate() {
        if i > 0 {
            put!(out, ", ");
        }
        element(out, value);
    }
}

/// Writes the value in its usual form: the `element` of plain numbers.
#[inline]
pub(super) fn plain<T: Put>(out: &mut Text, value: T) {
    put!(out, value);
}

/// The names of the flags that are set, with `separator` between them.
#[inline]
pub(super) fn put_names(out: &mut Text, bits: u8, names: &[(u8, &str)]) {
    put_elements(out, names.iter().filter(|(bit, _)| bits & bit != 0), |out, (_, name)| put!(out, *name));
}
