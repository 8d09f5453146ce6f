//! Several files of one segment, and segments that are not complete yet.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::{copy, damage, verify};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// What `args` have: findings and the summary. The files keep their times.
fn found_in(args: &[&Path]) -> (Vec<Value>, Value) {
    let here = TempDir::new().unwrap();
    let args = [Path::new("--format"), Path::new("json")].iter().chain(args).map(|arg| arg.as_os_str().to_owned()).collect::<Vec<_>>();
    let (status, out, err) = verify(here.path(), args);
    let mut lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    assert_eq!((status, err.as_str(), &summary["findings"]), (i32::from(!lines.is_empty()), "", &lines.len().into()), "{out}");
    (lines, summary)
}

fn old(dir: &Path) {
    for file in fs::read_dir(dir).unwrap().flatten() {
        age(&file.path(), 1_000_000_000);
    }
}

fn age(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).unwrap();
}

/// One finding, in the file `bad`, with `good` as the remedy.
#[track_caller]
fn charged(args: &[&Path], bad: &Path, good: &Path) -> Value {
    args.iter().for_each(|dir| old(dir));
    let (found, summary) = found_in(args);
    assert_eq!(found.len(), 1, "{found:#?}");
    let name = |path: &Path| Value::from(path.display().to_string());
    let one = &found[0];
    assert_eq!((&one["input"], &one["whole_copy"], &one["action"]), (&name(bad), &name(good), &"use_other".into()), "{one:#}");
    assert_eq!(summary["ends"].as_array().unwrap().len(), 1, "{summary}");
    one.clone()
}

#[test]
fn the_copy_that_is_damaged_is_charged() {
    let (dir, files) = copy(15, "workload");
    let good = fs::read(&files[1]).unwrap();
    let (plain, packed, zstd) = (&files[1], with(&files[1], ".gz"), with(&files[1], ".zst"));
    let dirs = [dir.path()];
    fs::write(&packed, gzip(&good)).unwrap();
    old(dir.path());
    let (found, summary) = found_in(&dirs);
    assert_eq!((found, summary["ends"].as_array().unwrap().len()), (vec![], 1));
    // In its middle, its first page, its last record, which goes on in the next segment, and cut off.
    for range in [0x4_0000..0x4_0100, 0..0x3000, 0xF_FF00..0x10_0000] {
        damage(plain, |bytes| bytes[range].fill(0xA7));
        let one = charged(&dirs, plain, &packed);
        assert_eq!(one["segment"], plain.file_name().unwrap().to_str().unwrap());
        fs::write(plain, &good).unwrap();
    }
    fs::write(plain, &good[..0x5_0000]).unwrap();
    assert_eq!(charged(&dirs, plain, &packed)["class"], "truncated");
    let text = verify(dir.path(), ["."]).1;
    assert!(text.contains(".gz is whole: use that one."), "{text}");
    // A server that is given the damaged one stops at it, whatever lies beside it.
    damage(plain, |bytes| {
        *bytes = good.clone();
        bytes[0x4_0000..0x4_0100].fill(0xA7);
    });
    let (status, text, _) = verify(dir.path(), ["--reach", "latest", "."]);
    assert!(status == 1 && text.contains("Files that may have what is missing: ./000000010000000000000025.gz"), "{text}");
    // The other way round, and without a plain one.
    fs::write(plain, &good).unwrap();
    let half = gzip(&good)[..90_000].to_vec();
    fs::write(&packed, &half).unwrap();
    assert_eq!(charged(&dirs, &packed, plain)["class"], "unreadable");
    fs::remove_file(plain).unwrap();
    fs::write(&zstd, zstd::encode_all(&good[..], 1).unwrap()).unwrap();
    charged(&dirs, &packed, &zstd);
    // In two places: each has what the other one lacks.
    fs::remove_file(&zstd).unwrap();
    fs::remove_file(&packed).unwrap();
    fs::write(plain, &good).unwrap();
    let (other, others) = copy(15, "workload");
    damage(&files[0], |bytes| bytes[0x4_0000..0x4_0100].fill(0xA7));
    damage(&others[2], |bytes| bytes[0x4_0000..0x4_0100].fill(0xA7));
    old(dir.path());
    old(other.path());
    let (found, _) = found_in(&[dir.path(), other.path()]);
    let told: Vec<_> = found.iter().map(|one| (one["input"].as_str().unwrap(), one["whole_copy"].as_str().unwrap())).collect();
    let name = |path: &PathBuf| path.display().to_string();
    assert_eq!(told, [(&*name(&files[0]), &*name(&others[0])), (&*name(&others[2]), &*name(&files[2]))]);
}

#[test]
fn a_partial_file_beside_the_whole_one() {
    let (dir, files) = copy(15, "workload");
    let good = fs::read(&files[1]).unwrap();
    let partial = with(&files[1], ".partial");
    let dirs = [dir.path()];
    let mut half = good.clone();
    half[0x8_0000..].fill(0);
    for bytes in [&half[..], &half[..0x8_0000], &[]] {
        fs::write(&partial, bytes).unwrap();
        old(dir.path());
        let (found, summary) = found_in(&dirs);
        assert_eq!((found, summary["ends"].as_array().unwrap().len()), (vec![], 1), "{}", bytes.len());
    }
    // The whole one is not whole, and the other is.
    fs::write(&partial, &good).unwrap();
    fs::write(&files[1], &half).unwrap();
    charged(&dirs, &files[1], &partial);
    damage(&files[1], |bytes| bytes[0x4_0000..0x4_0100].fill(0xA7));
    let (found, _) = found_in(&dirs);
    assert!(found.iter().all(|one| one["whole_copy"] == partial.display().to_string()), "{found:#?}");
    // Damage of the other one is charged to that.
    fs::write(&files[1], &good).unwrap();
    damage(&partial, |bytes| bytes[0x4_0000..0x4_0100].fill(0xA7));
    charged(&dirs, &partial, &files[1]);
}

#[test]
fn a_file_without_bytes() {
    let (dir, files) = copy(15, "workload");
    let last = files[2].file_name().unwrap().to_str().unwrap();
    let next = dir.path().join(format!("{}{:08X}", &last[..16], u32::from_str_radix(&last[16..], 16).unwrap() + 1));
    fs::write(&next, b"").unwrap();
    let empty = |at: &Path| {
        old(dir.path());
        let (found, _) = found_in(&[dir.path()]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!((&found[0]["class"], &found[0]["action"]), (&"empty_file".into(), &"archive_again".into()), "{found:#?}");
        assert_eq!(found[0]["input"], at.display().to_string());
    };
    empty(&next);
    // A receiver has begun it, or a server has made it ready for later.
    fs::rename(&next, with(&next, ".partial")).unwrap();
    old(dir.path());
    assert_eq!(found_in(&[dir.path()]).0, [] as [Value; 0]);
    fs::remove_file(with(&next, ".partial")).unwrap();
    fs::write(&next, vec![0; 1 << 20]).unwrap();
    old(dir.path());
    let (found, summary) = found_in(&[dir.path()]);
    assert_eq!((found, summary["leftover"].as_array().unwrap().len()), (vec![], 1));
    fs::remove_file(&next).unwrap();
    fs::write(&files[1], b"").unwrap();
    empty(&files[1]);
    // The other copy is there.
    let (_kept, goods) = copy(15, "workload");
    let packed = with(&files[1], ".gz");
    fs::write(&packed, gzip(&fs::read(&goods[1]).unwrap())).unwrap();
    charged(&[dir.path()], &files[1], &packed);
}

#[test]
fn a_segment_that_is_still_being_copied() {
    let (dir, files) = copy(15, "workload");
    let good = fs::read(&files[1]).unwrap();
    old(dir.path());
    // It has its size, the first part of its content, and is much newer than those around it.
    damage(&files[1], |bytes| bytes[0x4_2000..].fill(0));
    let (found, summary) = found_in(&[dir.path()]);
    assert_eq!((found, &summary["being_copied"][0]), (vec![], &files[1].display().to_string().into()));
    let here = TempDir::new().unwrap();
    let (status, out, _) = verify(here.path(), [dir.path()]);
    assert!(status == 0 && out.contains("is still being copied, and is not judged"), "{out}");
    assert!(out.contains("nothing found in what is complete (1 file not judged)"), "{out}");
    // Something other than zeroes, or zeroes all over, are not left by a copy.
    let is_damage = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        fs::write(&files[1], &good).unwrap();
        damage(&files[1], |bytes| change(bytes));
        let (found, summary) = found_in(&[dir.path()]);
        assert_eq!((found.len(), summary["being_copied"].as_array().map_or(0, Vec::len)), (1, 0), "{what}: {found:#?}");
    };
    is_damage("noise before zeroes", &|bytes| {
        bytes[0x4_2000..].fill(0);
        bytes[0x4_0000..0x4_2000].fill(0xA7);
    });
    is_damage("a few bytes of the last record", &|bytes| {
        let end = bytes[..0x4_2000].iter().rposition(|&byte| byte != 0).unwrap();
        bytes[end + 1..].fill(0);
        bytes[end - 40..end - 24].fill(0xA7);
    });
    is_damage("not up to a block", &|bytes| bytes[0x4_2100..].fill(0));
    is_damage("nothing but zeroes", &|bytes| bytes.fill(0));
    fs::write(&files[1], &good).unwrap();
    damage(&files[1], |bytes| bytes[0x4_2000..].fill(0));
    // In a data directory, too.
    let data = TempDir::new().unwrap();
    fs::create_dir(data.path().join("pg_wal")).unwrap();
    fs::write(data.path().join("PG_VERSION"), "15\n").unwrap();
    for file in fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
        let to = data.path().join("pg_wal").join(file.file_name().unwrap());
        fs::copy(&file, &to).unwrap();
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        fs::File::options().append(true).open(&to).unwrap().set_modified(modified).unwrap();
    }
    assert!(found_in(&[&data.path().join("pg_wal")]).0.iter().any(|one| one["class"] == "zeroed_tail"));
    // Not newer, or not a copy's end: damage.
    old(dir.path());
    assert_eq!(found_in(&[dir.path()]).0[0]["class"], "zeroed_tail");
    fs::write(&files[1], &good).unwrap();
    damage(&files[1], |bytes| bytes[0x4_2000..0x4_4000].fill(0));
    assert_eq!(found_in(&[dir.path()]).0[0]["class"], "zeroed_page");
    // It grows while one looks.
    fs::write(&files[1], &good[..0x4_2000]).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let (found, summary) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(&files[1]).unwrap();
            for piece in good[0x4_2000..].chunks(1024) {
                file.write_all(piece).unwrap();
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let found = found_in(&[dir.path()]);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        found
    });
    assert_eq!((found, &summary["being_copied"][0]), (vec![], &files[1].display().to_string().into()));
    // It does not grow any more.
    let (found, _) = found_in(&[dir.path()]);
    assert_eq!((found.len(), &found[0]["class"]), (1, &"truncated".into()), "{found:#?}");
}
