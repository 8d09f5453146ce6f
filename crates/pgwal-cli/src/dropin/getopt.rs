//! Options as glibc's `getopt_long` takes them: short options bundled, long ones abbreviated, operands in between, and its messages for
//! what is wrong.

use std::ffi::OsString;

/// Whether an option has an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// None.
    No,
    /// One, in the same word or the next.
    Required,
    /// None, or one in the same word after `=`. The short form never has one.
    Optional,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Name without the dashes.
    pub long: &'static str,
    /// Short name, or a control character that identifies an option without one.
    pub id: char,
    /// Its argument.
    pub argument: Argument,
    /// First major whose program has it.
    pub since: u8,
}

impl Opt {
    /// An option that is there whatever the major.
    pub const fn new(long: &'static str, id: char, argument: Argument) -> Opt {
        Opt { long, id, argument, since: 0 }
    }
}

/// What comes next on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// An option and its argument.
    Option(char, Option<OsString>),
    /// A word that is no option.
    Operand(OsString),
    /// Something is wrong, with getopt's message except for the program's name. `None`: `--help` or `--version` in a place other than the
    /// first, which getopt accepts and the programs then refuse without a message.
    Wrong(Option<String>),
}

/// Splits `words` as [`split`] does, with all options and the order that the environment asks for.
pub fn split_all(words: &[OsString], options: &[Opt]) -> Vec<Word> {
    split(words, options, u8::MAX, posix())
}

/// Whether the environment asks for options before operands only.
pub fn posix() -> bool {
    std::env::var_os("POSIXLY_CORRECT").is_some()
}

/// Splits `words` (without the program's name) in their order.
///
/// With `posix`, the first operand ends the options, as `POSIXLY_CORRECT` asks for. `options` are all there are. An abbreviation means an
/// option that `major` has, if one fits, so that options of later majors do not make it ambiguous.
pub fn split(words: &[OsString], options: &[Opt], major: u8, posix: bool) -> Vec<Word> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_encoded_bytes();
        match bytes {
            b"--" => {
                found.extend(words.cloned().map(Word::Operand));
                break;
            }
            [b'-', b'-', long @ ..] => found.push(long_option(long, options, major, &mut words)),
            [b'-', _, ..] => short_options(bytes, options, &mut words, &mut found),
            _ => {
                found.push(Word::Operand(word.clone()));
                if posix {
                    found.extend(words.by_ref().cloned().map(Word::Operand));
                }
            }
        }
    }
    found
}

fn long_option<'w>(long: &[u8], options: &[Opt], major: u8, words: &mut impl Iterator<Item = &'w OsString>) -> Word {
    let (name, value) = match long.iter().position(|&b| b == b'=') {
        Some(at) => (long.get(..at).unwrap_or_default(), long.get(at + 1..)),
        None => (long, None),
    };
    let exact: Vec<&Opt> = options.iter().filter(|option| option.long.as_bytes() == name).collect();
    let starts = |option: &&Opt| option.long.as_bytes().starts_with(name);
    let of_major: Vec<&Opt> = options.iter().filter(|option| option.since <= major).filter(starts).collect();
    let of_any: Vec<&Opt> = options.iter().filter(starts).collect();
    let candidates = [exact, of_major, of_any].into_iter().find(|list| !list.is_empty()).unwrap_or_default();
    let text = String::from_utf8_lossy(long);
    let option = match candidates[..] {
        [option] => option,
        [] => return Word::Wrong(Some(format!("unrecognized option '--{text}'"))),
        _ => {
            let names: Vec<String> = candidates.iter().map(|option| format!(" '--{}'", option.long)).collect();
            return Word::Wrong(Some(format!("option '--{text}' is ambiguous; possibilities:{}", names.concat())));
        }
    };
    let value = match (option.argument, value) {
        (Argument::No, Some(_)) => return Word::Wrong(Some(format!("option '--{}' doesn't allow an argument", option.long))),
        (Argument::Required, None) => match words.next() {
            Some(word) => Some(word.clone()),
            None => return Word::Wrong(Some(format!("option '--{}' requires an argument", option.long))),
        },
        (_, value) => value.map(os_string),
    };
    match option.id {
        '?' | 'V' => Word::Wrong(None),
        id => Word::Option(id, value),
    }
}

fn short_options<'w>(word: &[u8], options: &[Opt], words: &mut impl Iterator<Item = &'w OsString>, found: &mut Vec<Word>) {
    let mut letters = word.get(1..).unwrap_or_default();
    while let [letter, rest @ ..] = letters {
        letters = rest;
        let known = |option: &&Opt| option.id == char::from(*letter) && !matches!(option.id, '?' | 'V') && option.id.is_ascii_alphabetic();
        let Some(option) = options.iter().find(known) else {
            let letter = String::from_utf8_lossy(std::slice::from_ref(letter)).into_owned();
            found.push(Word::Wrong(Some(format!("invalid option -- '{letter}'"))));
            continue;
        };
        if option.argument != Argument::Required {
            found.push(Word::Option(option.id, None));
            continue;
        }
        let value = if rest.is_empty() { words.next().cloned() } else { Some(os_string(rest)) };
        found.push(match value {
            Some(value) => Word::Option(option.id, Some(value)),
            None => Word::Wrong(Some(format!("option requires an argument -- '{}'", option.id))),
        });
        return;
    }
}

/// Part of a word: cut at an ASCII character, so no character is cut in two.
fn os_string(bytes: &[u8]) -> OsString {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec());
    #[cfg(not(unix))]
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::Argument::{No, Optional, Required};
    use super::*;

    const OPTIONS: &[Opt] = &[
        Opt { long: "follow", id: 'f', argument: No, since: 10 },
        Opt { long: "fork", id: 'F', argument: Required, since: 15 },
        Opt { long: "help", id: '?', argument: No, since: 10 },
        Opt { long: "stats", id: 'z', argument: Optional, since: 10 },
        Opt { long: "start", id: 's', argument: Required, since: 10 },
        Opt { long: "save-fullpage", id: '\u{1}', argument: Required, since: 16 },
    ];

    fn words(line: &str, major: u8) -> Vec<Word> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        split(&words, OPTIONS, major, false)
    }

    fn option(id: char, value: Option<&str>) -> Word {
        Word::Option(id, value.map(OsString::from))
    }

    fn operand(text: &str) -> Word {
        Word::Operand(text.into())
    }

    fn wrong(text: &str) -> Word {
        Word::Wrong(Some(text.into()))
    }

    #[test]
    fn options_and_operands_in_any_order() {
        let expected =
            [operand("a"), option('f', None), option('s', Some("0/1")), operand("-"), option('s', Some("b")), operand("c"), operand("-f")];
        assert_eq!(words("a -fs0/1 - --start=b c -- -f", 18), expected);
        assert_eq!(words("-s -- x", 18), [option('s', Some("--")), operand("x")]);
        assert_eq!(words("-z record --stats=record", 18), [option('z', None), operand("record"), option('z', Some("record"))]);
        assert_eq!(words("--save=d --stat", 18), [option('\u{1}', Some("d")), option('z', None)]);
    }

    #[test]
    fn an_operand_may_end_the_options() {
        let words = ["-f", "a", "-f", "--foo"].map(OsString::from);
        assert_eq!(split(&words, OPTIONS, 18, true), [option('f', None), operand("a"), operand("-f"), operand("--foo")]);
    }

    #[test]
    fn messages() {
        assert_eq!(words("--foo=1", 18), [wrong("unrecognized option '--foo=1'")]);
        assert_eq!(words("--fo", 18), [wrong("option '--fo' is ambiguous; possibilities: '--follow' '--fork'")]);
        assert_eq!(words("--fo", 14), [option('f', None)]);
        assert_eq!(words("--fork main", 14), [option('F', Some("main"))]);
        assert_eq!(words("--follow=1", 18), [wrong("option '--follow' doesn't allow an argument")]);
        assert_eq!(words("--star", 18), [wrong("option '--start' requires an argument")]);
        assert_eq!(words("-fs", 18), [option('f', None), wrong("option requires an argument -- 's'")]);
        assert_eq!(words("-z=", 18), [option('z', None), wrong("invalid option -- '='")]);
        assert_eq!(words("-V", 18), [wrong("invalid option -- 'V'")]);
        assert_eq!(words("--hel", 18), [Word::Wrong(None)]);
    }
}
