//! What stands beside segments, and the forms that segments come in: compressed, encrypted, half copied.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{copy, findings, verify};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The findings of a folder that has other files beside its segments: their names, and the exit status.
fn with_others(dir: &Path) -> (i32, Vec<Value>, Vec<String>) {
    let (status, out, err) = verify(dir, ["--format", "json", "."]);
    assert_eq!(err, "");
    let mut lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.pop().unwrap()["type"], "summary");
    let others = lines.pop_if(|line| line["type"] == "beside").map(|line| line["files"].clone()).unwrap_or_default();
    let names = others.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect();
    (status, lines, names)
}

#[test]
fn files_beside_segments_are_no_segments() {
    let (dir, files) = copy(15, "workload");
    let segment = fs::read(&files[1]).unwrap();
    for (suffix, bytes) in [
        (".gz.tmp", &b""[..]),
        (".tmp", &segment[..100_000]),
        (".bak", &segment),
        (".old", b"old"),
        (".part", &[0; 8192]),
        (".filepart", &segment[..8192]),
        (".md5", b"d41d8cd98f00b204e9800998ecf8427e\n"),
        (".sha256", b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"),
        ("~", &segment),
    ] {
        fs::write(beside(&files[1], suffix), bytes).unwrap();
    }
    let (status, found, others) = with_others(dir.path());
    assert_eq!((status, found.len(), others.len()), (0, 0, 9), "{found:?}");
    let (status, out, _) = verify(dir.path(), ["."]);
    let name = files[1].file_name().unwrap().to_str().unwrap();
    assert!(
        status == 0 && out.contains(&format!("9 other files beside the segments, not looked at: {name}.bak, {name}.filepart, ")),
        "{out}"
    );
    // None of them stands in for the segment that is gone, not even a whole copy.
    fs::remove_file(&files[1]).unwrap();
    let (status, found, others) = with_others(dir.path());
    assert_eq!((status, found.len(), others.len()), (1, 1, 9), "{found:?}");
    assert_eq!((&found[0]["class"], &found[0]["input"]), (&"missing_segment".into(), &name.into()));
    // Who asks for one by its name gets it judged.
    let (status, out, _) = verify(dir.path(), [format!("{name}.bak")]);
    assert!(status == 0 && out.contains("nothing found"), "{out}");
}

/// What a shell makes of `*` is the folder, and of a part of it these segments; other files in it are not judged.
#[test]
fn a_pattern_means_the_segments_among_its_files() {
    let (dir, files) = copy(15, "workload");
    for (name, bytes) in [("README", &b"about this archive\n"[..]), ("00000009.history", b"8\t0/5000000\tno reason\n")] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(beside(&files[0], ".tmp"), b"").unwrap();
    fs::create_dir(dir.path().join("archive_status")).unwrap();
    fs::write(dir.path().join(".hidden"), b"").unwrap();
    let (_, whole, _) = verify(dir.path(), ["."]);
    let names = || {
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    };
    let (status, out, err) = verify(dir.path(), names());
    assert_eq!((status, out.as_str(), err.as_str()), (0, whole.as_str(), ""));
    assert!(whole.contains("1 other file beside the segments"), "{whole}");
    // Part of it.
    let part: Vec<String> =
        names().into_iter().filter(|name| name.starts_with("0000000") && !name.starts_with("000000010000000000000099")).collect();
    assert!(part.len() > 3 && part.len() < names().len());
    let (status, out, err) = verify(dir.path(), part);
    assert!(status == 0 && err.is_empty() && out.contains(&format!("Checked {} segments", files.len())), "{out} {err}");
}

#[test]
fn packings_are_read() {
    let (dir, files) = copy(15, "workload");
    let expected = verify(dir.path(), ["."]);
    let segment = fs::read(&files[1]).unwrap();
    let packed = |bytes: &[u8]| -> Vec<(&str, Vec<u8>)> {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(bytes).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        bzip2.write_all(bytes).unwrap();
        vec![(".xz", xz.finish().unwrap()), (".bz2", bzip2.finish().unwrap())]
    };
    let whole = packed(&segment);
    let halves = packed(&segment[..500_000]).into_iter().zip(packed(&segment[500_000..]));
    let in_two: Vec<_> = halves.map(|((suffix, first), (_, second))| (suffix, [first, second].concat())).collect();
    fs::remove_file(&files[1]).unwrap();
    for (suffix, bytes) in whole.iter().chain(&in_two) {
        // The name does not matter: some archivers compress and give none.
        for name in [beside(&files[1], suffix), files[1].clone()] {
            fs::write(&name, bytes).unwrap();
            assert_eq!(verify(dir.path(), ["."]), expected, "{suffix}");
            // Cut short, it is that file that does not unpack, and nothing else.
            fs::write(&name, &bytes[..bytes.len() / 2]).unwrap();
            let (status, found) = findings(dir.path());
            assert_eq!((status, found.len()), (1, 1), "{suffix}: {found:?}");
            fs::remove_file(&name).unwrap();
        }
    }
    // A header that asks for a dictionary of 1.5 GB.
    let options = liblzma::stream::LzmaOptions::new_preset(0).map(|mut options| {
        options.dict_size(1_536 << 20);
        options
    });
    let filters = options.map(|options| {
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        filters
    });
    let large = liblzma::stream::Stream::new_stream_encoder(&filters.unwrap(), liblzma::stream::Check::Crc32);
    // The encoder itself takes ten times as much; where that is not to be had, its output is not either.
    if let Ok(stream) = large {
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(&segment).unwrap();
        fs::write(beside(&files[1], ".xz"), encoder.finish().unwrap()).unwrap();
        let (status, found) = findings(dir.path());
        assert_eq!((status, found.len()), (1, 1), "{found:?}");
        assert_eq!(found[0]["class"], "unreadable", "{found:?}");
    }
}

/// The data is whole, and so is the segment; but the programs that a restore calls may exit with an error.
#[test]
fn what_follows_a_packed_segment() {
    let (dir, files) = copy(15, "workload");
    let expected = verify(dir.path(), ["."]);
    let dump = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgwal"));
        let output = command.args(["dump", "."]).current_dir(dir.path()).output().unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let text = dump();
    let segment = fs::read(&files[1]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&segment).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&segment[..], 1).unwrap();
    for (suffix, packed, tail, is_told) in [
        (".gz", &gzip, &[0; 10_240][..], false),
        (".gz", &gzip, b"garbage", true),
        (".zst", &zstd, &[0; 512], true),
        (".zst", &zstd, b"x", true),
    ] {
        let path = beside(&files[1], suffix);
        fs::write(&path, [packed, tail].concat()).unwrap();
        assert_eq!(dump(), text, "{suffix}");
        if is_told {
            let (status, found) = findings(dir.path());
            assert_eq!((status, found.len()), (1, 1), "{found:?}");
            assert_eq!((&found[0]["class"], &found[0]["offset"]), (&"after_packed".into(), &packed.len().into()), "{found:?}");
            let (_, out, _) = verify(dir.path(), ["."]);
            let name = path.file_name().unwrap().to_str().unwrap();
            let says = format!("./{name}: trailing garbage: the compressed data is whole and ends at 0x{:x} of the file", packed.len());
            assert!(out.contains(&says), "{out}");
        } else {
            assert_eq!(verify(dir.path(), ["."]), expected);
        }
        fs::remove_file(path).unwrap();
    }
}

/// What is not unwrapped is named, and its neighbours have nothing to do with it.
#[test]
fn what_is_wrapped_is_named() {
    let noise: Vec<u8> = (0..60_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (suffix, front, wrapping) in [
        (".gpg", &b"\x85\x02\x0C\x03\x01\x02\x03\x04\x05\x06\x07\x08\x01"[..], "open_pgp"),
        (".gz.gpg", b"\x8C\x0D\x04\x09\x03\x02", "open_pgp"),
        ("", b"-----BEGIN PGP MESSAGE-----\n", "open_pgp"),
        (".age", b"age-encryption.org/v1\n", "age"),
        ("", b"age-encryption.org/v1\n", "age"),
        (".enc", b"Salted__", "open_ssl"),
        ("", b"Salted__", "open_ssl"),
        (".aes", b"", "encrypted"),
        (".br", b"\x1B", "brotli"),
        (".lzma", b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", "lzma"),
        (".lzo", b"\x89LZO\0\r\n\x1A\n", "lzop"),
        (".lz4", b"\x02\x21\x4C\x18\x10\x20\0\0", "legacy_lz4"),
        (".zst", b"\x28\xB5\x2F\xFD\x61\x07", "dictionary"),
        (".zst", b"\x28\xB5\x2F\xFD\x00\xA8", "large_window"),
        (".lz4", b"\x04\x22\x4D\x18\x61\x70\x01\0\0\0\x42", "dictionary"),
        (".snappy", b"\xFF\x06\0\0sNaPpY", "snappy"),
        (".zip", b"PK\x03\x04", "zip"),
        (".7z", b"7z\xBC\xAF\x27\x1C", "seven_zip"),
        (".Z", b"\x1F\x9D", "compress"),
    ] {
        let (dir, files) = copy(15, "workload");
        fs::remove_file(&files[1]).unwrap();
        fs::write(beside(&files[1], suffix), [front, &noise].concat()).unwrap();
        let (status, found) = findings(dir.path());
        assert_eq!((status, found.len()), (1, 1), "{suffix}: {found:?}");
        let finding = &found[0];
        let told = (&finding["class"], &finding["wrapping"], &finding["action"]);
        assert_eq!(told, (&"not_read".into(), &wrapping.into(), &"unwrap".into()), "{suffix} {finding:#}");
        let (_, out, _) = verify(dir.path(), ["."]);
        assert!(out.contains(": not read: "), "{out}");
    }
    // A suffix alone makes nothing of a segment that is there.
    let (dir, files) = copy(15, "workload");
    fs::rename(&files[1], beside(&files[1], ".enc")).unwrap();
    assert_eq!(findings(dir.path()), (0, vec![]));
}
