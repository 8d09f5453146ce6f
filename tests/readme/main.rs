//! The README is true: its examples run, and print what it shows.
//!
//! Every `$ ` line of a `console` block runs in a shell at the top of the repository, and what it prints must be the lines below it.
//! A line that is `…` stands for any number of lines, and a line that ends in `…` for its rest. What does not run says so in the README: a
//! block that is marked `console no-run` speaks of files that the reader has; its commands must only be ones that `pgwal` understands. A block
//! that is marked `text` shows what was printed with a server.
#![cfg(unix)]

mod library;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Commands that set up the reader's machine; the tests themselves run them.
const NOT_OURS: [&str; 4] = ["cargo run", "cargo test", "ln -s pgwal pg_waldump", "ln -s pgwal pg_verifybackup"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn readme() -> String {
    std::fs::read_to_string(top().join("README.md")).unwrap()
}

/// A fenced block.
struct Block<'t> {
    /// What the fence says: the language and more.
    info: &'t str,
    /// Line of the fence, from 1.
    line: usize,
    text: Vec<&'t str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (Some(info), false) => {
                blocks.push(Block { info, line: at + 1, text: Vec::new() });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => blocks.last_mut().expect("a block is open").text.push(line),
            (None, false) => {}
        }
    }
    assert!(!inside, "a block that does not end");
    blocks
}

/// The commands of a block, each with the lines that it prints.
fn commands<'t>(block: &Block<'t>) -> Vec<(&'t str, Vec<&'t str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for &line in &block.text {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, Vec::new())),
            (None, Some((_, output))) => output.push(line),
            (None, None) => panic!("README.md:{}: output before any command", block.line),
        }
    }
    commands
}

/// Runs a command line with the built `pgwal`; all that it prints, and its exit status.
fn run(command: &str, dir: &Path, status_before: i32) -> (String, i32) {
    let mut path = OsString::from(Path::new(env!("CARGO_BIN_EXE_pgwal")).parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let line = format!("exec 2>&1\n(exit {status_before})\n{command}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir(dir).stdin(Stdio::null());
    let output = shell.env("PATH", path).env("TZ", "UTC").env("LC_ALL", "C").env_remove("PGDATA").output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// Whether `found` is what `shown` says, with its `…`.
fn is_shown(found: &[&str], shown: &[&str]) -> bool {
    match (shown.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((&"…", shown)), _) => (0..=found.len()).any(|skipped| is_shown(&found[skipped..], shown)),
        (Some((shown, more_shown)), Some((found, more_found))) => {
            let same = match shown.strip_suffix('…') {
                Some(start) => found.starts_with(start),
                None => found == shown,
            };
            same && is_shown(more_found, more_shown)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[test]
fn examples_print_what_is_shown() {
    let text = readme();
    let mut ran = 0;
    for block in blocks(&text).iter().filter(|block| block.info == "console") {
        let mut status = 0;
        for (command, shown) in commands(block) {
            if NOT_OURS.iter().any(|other| command.starts_with(other)) {
                assert!(shown.is_empty(), "README.md:{}: `{command}` does not run, so what it prints cannot be told", block.line);
                continue;
            }
            assert!(!command.contains("cargo") && !command.contains("pg_waldump"), "README.md:{}: `{command}`", block.line);
            let (found, code) = run(command, &top(), status);
            status = code;
            let lines: Vec<&str> = found.lines().collect();
            assert!(is_shown(&lines, &shown), "README.md:{}: `{command}` prints\n{found}", block.line);
            assert!(code < 2, "README.md:{}: `{command}` exits with {code}", block.line);
            ran += 1;
        }
    }
    assert!(ran >= 3, "{ran} commands ran");
}

#[test]
fn commands_that_do_not_run_are_understood() {
    let text = readme();
    let nowhere = tempfile::tempdir().unwrap();
    for block in blocks(&text).iter().filter(|block| block.info == "console no-run") {
        for (command, shown) in commands(block) {
            assert!(shown.is_empty(), "README.md:{}: `{command}` does not run, so what it prints cannot be told", block.line);
            let ours = &command[command.find("pgwal ").unwrap_or_else(|| panic!("README.md:{}: `{command}`", block.line))..];
            let (found, code) = run(ours, nowhere.path(), 0);
            // Some commands exit with 2 where there is nothing to read, so the status alone does not tell.
            assert!(code <= 2 && !found.contains("try '--help'"), "README.md:{}: `{ours}`: {found}", block.line);
        }
    }
}

#[test]
fn blocks_are_of_a_known_kind() {
    let text = readme();
    for block in blocks(&text) {
        assert!(["console", "console no-run", "rust", "text"].contains(&block.info), "README.md:{}: ```{}", block.line, block.info);
    }
}

#[test]
fn the_library_in_ten_lines() {
    if std::env::var_os("PGWAL_TEST_LIBRARY").is_some() {
        return library::run().unwrap();
    }
    let text = readme();
    let blocks = blocks(&text);
    let rust: Vec<&Block<'_>> = blocks.iter().filter(|block| block.info == "rust").collect();
    let [block] = rust[..] else { panic!("one block of Rust") };
    let compiled: Vec<&str> = include_str!("library.rs").lines().skip_while(|line| !line.starts_with("fn ")).collect();
    assert_eq!(block.text, compiled, "README.md:{}: not what tests/readme/library.rs has", block.line);
    // In a process of its own: the directory is one for all tests.
    let mut it = Command::new(std::env::current_exe().unwrap());
    let ran = it.args(["--exact", "the_library_in_ten_lines"]).env("PGWAL_TEST_LIBRARY", "1").current_dir(top()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

/// Each command's help ends with an example.
#[test]
fn examples_in_help_run() {
    let (help, _) = run("pgwal help", &top(), 0);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut ran = 0;
    for name in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let (help, _) = run(&format!("pgwal {name} --help"), &top(), 0);
        let examples: Vec<&str> = help.lines().filter_map(|line| line.trim_start().strip_prefix("Example: ")).collect();
        assert!(!examples.is_empty(), "pgwal {name} --help shows no example");
        for example in examples {
            let (found, code) = run(example, &top(), 0);
            // 1: what is compared differs, what is checked is damaged. There is no server by the name that the examples use.
            let no_server = found.contains("could not translate host name");
            assert!((code < 2 || no_server) && !found.is_empty(), "`{example}`: {code}\n{found}");
            ran += 1;
        }
    }
    assert!(ran > 0);
}

#[test]
fn ellipses() {
    assert!(is_shown(&["a", "b", "c"], &["a", "…", "c"]) && is_shown(&["a", "c"], &["a", "…", "c"]) && is_shown(&["abc"], &["ab…"]));
    assert!(!is_shown(&["a", "b", "c"], &["a", "b"]) && !is_shown(&["a"], &["a", "b"]) && !is_shown(&["a", "b"], &["…", "c"]));
}
