//! Paths as PostgreSQL's programs clean them up. C: port/path.c.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Without `.`, repeated and trailing slashes, and `..` after a name. C: `canonicalize_path`.
pub fn canonicalize(path: &OsStr) -> PathBuf {
    let bytes = path.as_bytes();
    let is_absolute = bytes.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in bytes.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(&last) if last != b".." => drop(parts.pop()),
                None if is_absolute => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let mut clean = Vec::with_capacity(bytes.len());
    for (at, part) in parts.iter().enumerate() {
        if at > 0 || is_absolute {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    if clean.is_empty() && !bytes.is_empty() {
        clean.push(if is_absolute { b'/' } else { b'.' });
    }
    OsStr::from_bytes(&clean).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_by_postgresql() {
        for (path, clean) in [
            ("", ""),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("//", "/"),
            ("a/./b//c/", "a/b/c"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a/..", "../.."),
            ("/../a", "/a"),
            ("/a/b/../..", "/"),
        ] {
            assert_eq!(canonicalize(OsStr::new(path)), PathBuf::from(clean), "{path}");
        }
    }
}
