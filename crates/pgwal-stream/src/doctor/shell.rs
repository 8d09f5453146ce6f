//! `archive_command`, as far as one can tell what a shell makes of it: whether it can fail, and whether it overwrites what is in the archive.
//!
//! Only what is certain is said. What is not understood counts as a command that may fail and that looks before it writes.

/// What is wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It does nothing, and succeeds.
    DoesNothing,
    /// It says success whatever happens.
    CannotFail,
    /// It is not told which file to archive: neither `%p` nor `%f` is in it.
    NoFile,
    /// It takes the segment away from the server.
    Removes,
    /// It writes over a file of that name in the archive.
    Overwrites,
}

/// Everything that is wrong with a command.
pub(super) fn flaws(command: &str) -> Vec<Flaw> {
    let Some(list) = parse(command) else { return Vec::new() };
    let mut flaws = Vec::new();
    if list.status(false) == Status::Succeeds {
        flaws.push(if list.does_nothing() { Flaw::DoesNothing } else { Flaw::CannotFail });
    }
    if flaws.first() != Some(&Flaw::DoesNothing) {
        // One that always fails is told by its failures.
        if !placeholders(command).any(|c| c == 'p' || c == 'f') && list.status(false) != Status::Fails {
            flaws.push(Flaw::NoFile);
        }
        let mut look = Look::default();
        look.list(&list, false);
        flaws.extend(look.removes.then_some(Flaw::Removes));
        flaws.extend((!look.removes && look.overwrites).then_some(Flaw::Overwrites));
    }
    flaws
}

/// The same copy with a test before it, where the command is a plain `cp`; `None`: it is another.
pub(super) fn with_test(command: &str) -> Option<String> {
    let list = parse(command)?;
    let mut copies = Vec::new();
    list.each(&mut |simple| {
        if simple.name() == Some("cp") {
            copies.push(simple.clone());
        }
    });
    let [copy] = copies.as_slice() else { return None };
    let words: Vec<&str> = copy.arguments().iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let ["%p", to] = words.as_slice() else { return None };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-%".contains(c);
    if !to.chars().all(plain) {
        return None;
    }
    let to = if to.contains("%f") { (*to).to_owned() } else { format!("{}/%f", to.trim_end_matches('/')) };
    Some(format!("test ! -f {to} && cp %p {to}"))
}

/// What stands after each `%`.
fn placeholders(command: &str) -> impl Iterator<Item = char> + '_ {
    let mut chars = command.chars();
    std::iter::from_fn(move || {
        chars.by_ref().find(|&c| c == '%')?;
        chars.next()
    })
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Succeeds,
    Fails,
    /// One or the other.
    Open,
}

/// Commands with `;` or `&` after them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List(Vec<Item>);

/// Pipelines with `&&` and `||` between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    first: Pipeline,
    /// What follows; `true`: after `&&`.
    rest: Vec<(bool, Pipeline)>,
    /// `&` is after it.
    background: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pipeline {
    /// `!` is before it.
    not: bool,
    commands: Vec<Command>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Simple(Simple),
    /// `( … )` or `{ …; }`.
    Group(List),
    If {
        /// Condition and what is done then: of `if` and each `elif`.
        branches: Vec<(List, List)>,
        otherwise: Option<List>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Simple {
    words: Vec<String>,
    /// Files that its output goes to.
    to: Vec<String>,
}

impl Simple {
    /// Its words, without variables set for it and commands that just run another.
    fn run(&self) -> &[String] {
        let mut words = self.words.as_slice();
        while let [first, rest @ ..] = words {
            let name = base(first);
            let is_assignment = first.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                    && !name.starts_with(|c: char| c.is_ascii_digit())
            });
            let runs_another = ["exec", "command", "env", "nohup", "sudo", "time", "nice", "ionice"].contains(&name);
            let is_plain = rest.first().is_some_and(|next| !next.starts_with('-'));
            if !(is_assignment || runs_another && is_plain) {
                break;
            }
            words = rest;
        }
        words
    }

    fn name(&self) -> Option<&str> {
        self.run().first().map(|word| base(word))
    }

    fn arguments(&self) -> &[String] {
        self.run().get(1..).unwrap_or_default()
    }

    /// The text that a shell is told to run.
    fn script(&self) -> Option<List> {
        if !["sh", "bash", "dash", "ash", "ksh", "zsh"].contains(&self.name()?) {
            return None;
        }
        let arguments = self.arguments();
        let at = arguments.iter().position(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'))?;
        let mut list = parse(arguments.get(at + 1)?)?;
        if arguments.get(at)?.contains('e') {
            let set = Simple { words: vec!["set".to_owned(), "-e".to_owned()], to: Vec::new() };
            list.0
                .insert(0, Item { first: Pipeline { not: false, commands: vec![Command::Simple(set)] }, rest: vec![], background: false });
        }
        Some(list)
    }

    /// What another machine is told to run.
    fn remote(&self) -> Option<List> {
        if self.name()? != "ssh" {
            return None;
        }
        // What has a space is no host and no option.
        let at = self.arguments().iter().position(|word| word.contains(' '))?;
        parse(&self.arguments().get(at..)?.join(" "))
    }

    fn status(&self) -> Status {
        if let Some(script) = self.script() {
            return script.status(false);
        }
        match self.name() {
            None => Status::Open,
            // With a redirection it could fail for that; an archive is not what it is for.
            Some("true" | ":" | "echo" | "printf" | "logger" | "sleep") => Status::Succeeds,
            Some("false") => Status::Fails,
            Some("exit" | "return") => match self.arguments().first().map(String::as_str) {
                Some("0") => Status::Succeeds,
                Some(number) if number.parse::<u8>().is_ok() => Status::Fails,
                _ => Status::Open,
            },
            Some(_) => Status::Open,
        }
    }

    /// It ends everything with a failure, or has everything end at the first.
    fn can_end_badly(&self) -> bool {
        match self.name() {
            Some("exit" | "return") => self.status() != Status::Succeeds,
            Some("set") => self.arguments().iter().any(|word| word.starts_with('-') && word.contains('e') || word == "errexit"),
            _ => false,
        }
    }

    /// An option of one letter, alone or among others.
    fn has(&self, letters: &[char]) -> bool {
        self.arguments().iter().any(|word| word.starts_with('-') && !word.starts_with("--") && word.contains(letters))
    }

    fn has_word(&self, words: &[&str]) -> bool {
        self.arguments().iter().any(|word| words.iter().any(|wanted| word == wanted || word.starts_with(&format!("{wanted}="))))
    }

    /// `Some(true)`: it succeeds if the archive has such a file; `Some(false)`: if it has none.
    fn tests_file(&self) -> Option<bool> {
        let words = self.arguments();
        let asks = words.iter().any(|word| ["-f", "-e", "-s", "-r"].contains(&word.as_str()));
        let is = asks && ["test", "[", "[["].contains(&self.name()?) && words.iter().any(|word| word.contains("%f"));
        is.then(|| words.first().is_none_or(|word| word != "!"))
    }
}

/// Without its folder.
fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

impl Pipeline {
    fn status(&self, pipefail: bool) -> Status {
        let statuses: Vec<Status> = self.commands.iter().map(|command| command.status(pipefail)).collect();
        let mut status = statuses.last().copied().unwrap_or(Status::Open);
        if pipefail && status == Status::Succeeds && statuses.iter().any(|&status| status != Status::Succeeds) {
            status = Status::Open;
        }
        match status {
            Status::Succeeds if self.not => Status::Fails,
            Status::Fails if self.not => Status::Succeeds,
            status => status,
        }
    }

    /// As [`Simple::tests_file`].
    fn tests_file(&self) -> Option<bool> {
        let [Command::Simple(simple)] = self.commands.as_slice() else { return None };
        simple.tests_file().map(|is| is != self.not)
    }
}

impl Command {
    fn status(&self, pipefail: bool) -> Status {
        match self {
            Command::Simple(simple) => simple.status(),
            Command::Group(list) => list.status(pipefail),
            Command::If { branches, otherwise } => {
                let lists = branches.iter().map(|(_, then)| then).chain(otherwise);
                match lists.into_iter().all(|list| list.status(pipefail) == Status::Succeeds) {
                    true => Status::Succeeds,
                    false => Status::Open,
                }
            }
        }
    }
}

impl List {
    fn status(&self, pipefail: bool) -> Status {
        let (mut pipefail, mut can_end_badly) = (pipefail, false);
        self.each(&mut |simple| {
            pipefail |= simple.name() == Some("set") && simple.has_word(&["pipefail"]);
            can_end_badly |= simple.can_end_badly();
        });
        let Some(last) = self.0.last() else { return Status::Succeeds };
        let status = if last.background { Status::Succeeds } else { last.status(pipefail) };
        if can_end_badly && status == Status::Succeeds { Status::Open } else { status }
    }

    fn does_nothing(&self) -> bool {
        let mut nothing = true;
        self.each(&mut |simple| {
            let idle = ["true", "false", ":", "echo", "printf", "logger", "exit", "return", "test", "[", "[[", "set", "sleep"];
            nothing &= simple.script().map_or_else(|| simple.name().is_none_or(|name| idle.contains(&name)), |list| list.does_nothing());
        });
        nothing
    }

    /// Every simple command, in order.
    fn each(&self, visit: &mut dyn FnMut(&Simple)) {
        for item in &self.0 {
            for pipeline in std::iter::once(&item.first).chain(item.rest.iter().map(|(_, pipeline)| pipeline)) {
                for command in &pipeline.commands {
                    match command {
                        Command::Simple(simple) => visit(simple),
                        Command::Group(list) => list.each(visit),
                        Command::If { branches, otherwise } => {
                            branches.iter().for_each(|(condition, then)| {
                                condition.each(visit);
                                then.each(visit);
                            });
                            otherwise.iter().for_each(|list| list.each(visit));
                        }
                    }
                }
            }
        }
    }
}

impl Item {
    fn status(&self, pipefail: bool) -> Status {
        // What matters is what comes of the copying, once the test before it lets it begin.
        let mut test = self.first.tests_file();
        self.rest.iter().fold(self.first.status(pipefail), |status, (and, pipeline)| {
            let next = pipeline.status(pipefail);
            if test.is_some_and(|is_there| is_there != *and) {
                test = pipeline.tests_file();
                return next;
            }
            match (status, and) {
                (Status::Succeeds, true) | (Status::Fails, false) => next,
                (Status::Fails, true) | (Status::Succeeds, false) => status,
                (Status::Open, true) => {
                    if next == Status::Fails {
                        next
                    } else {
                        Status::Open
                    }
                }
                (Status::Open, false) => {
                    if next == Status::Succeeds {
                        next
                    } else {
                        Status::Open
                    }
                }
            }
        })
    }
}

/// What is written and taken away, and whether somebody looked before.
#[derive(Default)]
struct Look {
    removes: bool,
    overwrites: bool,
    /// `set -C`: the shell itself refuses to overwrite.
    noclobber: bool,
}

impl Look {
    /// `guarded`: it was made sure that no such file is there.
    fn list(&mut self, list: &List, guarded: bool) {
        let mut guarded = guarded;
        // A copy that is renamed later is not the file in the archive yet.
        let mut renames = false;
        list.each(&mut |simple| renames |= matches!(simple.name(), Some("mv" | "ln")));
        for item in &list.0 {
            let mut here = guarded;
            let mut test = item.first.tests_file();
            self.pipeline(&item.first, here, renames);
            for (and, pipeline) in &item.rest {
                // `test ! -f x && …` and `test -f x || …`
                here |= test.is_some_and(|is_there| is_there != *and);
                // `test -f x && exit 1; …`
                let exits = matches!(pipeline.commands.as_slice(), [Command::Simple(simple)] if simple.name() == Some("exit"));
                guarded |= exits && test.is_some_and(|is_there| is_there == *and);
                test = test.or(pipeline.tests_file());
                self.pipeline(pipeline, here, renames);
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, guarded: bool, renames: bool) {
        for command in &pipeline.commands {
            match command {
                Command::Simple(simple) => self.simple(simple, guarded, renames),
                Command::Group(list) => self.list(list, guarded),
                Command::If { branches, otherwise } => {
                    let mut absent = guarded;
                    for (condition, then) in branches {
                        let test = match condition.0.as_slice() {
                            [Item { first, rest, .. }] if rest.is_empty() => first.tests_file(),
                            _ => None,
                        };
                        self.list(then, absent || test == Some(false));
                        absent |= test == Some(true);
                    }
                    otherwise.iter().for_each(|list| self.list(list, absent));
                }
            }
        }
    }

    fn simple(&mut self, simple: &Simple, guarded: bool, renames: bool) {
        if let Some(list) = simple.script().or_else(|| simple.remote()) {
            return self.list(&list, guarded);
        }
        let Some(name) = simple.name() else { return };
        let takes = |word: &str| simple.arguments().iter().any(|argument| argument == word);
        let from_server = takes("%p");
        if name == "set" {
            self.noclobber |= simple.has(&['C']) || simple.has_word(&["noclobber"]);
        }
        let to_output = simple.has(&['c']) || simple.has_word(&["--stdout", "--to-stdout"]);
        let keeps = to_output || simple.has(&['k']) || simple.has_word(&["--keep"]);
        self.removes |= match name {
            "mv" | "rm" | "unlink" | "shred" => {
                from_server
                    && (name != "mv" || simple.arguments().iter().find(|word| !word.starts_with('-')).is_some_and(|word| word == "%p"))
            }
            "gzip" | "pigz" | "bzip2" | "pbzip2" | "xz" | "lzma" | "lzop" => from_server && !keeps && name != "lzop",
            "zstd" | "lz4" => from_server && simple.has_word(&["--rm"]),
            "rsync" => from_server && simple.has_word(&["--remove-source-files", "--remove-sent-files"]),
            _ => false,
        };
        let names_file = |word: &String| placeholders(word).any(|c| c == 'p' || c == 'f');
        let redirects = !self.noclobber && simple.to.iter().any(names_file);
        let one_file = simple.arguments().iter().any(names_file);
        let words = |wanted: &[&str]| wanted.iter().all(|word| takes(word));
        let writes = match name {
            "cp" | "install" => {
                !renames
                    && one_file
                    && !simple.has(&['n', 'i', 'b'])
                    && !simple.has_word(&["--no-clobber", "--interactive", "--backup", "--update=none"])
            }
            "mv" => {
                one_file
                    && !simple.has(&['n', 'i', 'b'])
                    && !simple.has_word(&["--no-clobber", "--interactive", "--backup", "--update=none"])
            }
            "ln" => one_file && (simple.has(&['f']) || simple.has_word(&["--force"])),
            "rsync" => !renames && one_file && !simple.has_word(&["--ignore-existing", "--backup"]) && !simple.has(&['b']),
            "scp" | "tee" => !renames && one_file,
            "dd" => {
                !renames
                    && simple.arguments().iter().any(|word| word.starts_with("of=") && names_file(word))
                    && !simple.arguments().iter().any(|word| word.starts_with("conv=") && word.contains("excl"))
            }
            "aws" => one_file && words(&["s3"]) && (words(&["cp"]) || words(&["mv"])),
            "gsutil" => one_file && words(&["cp"]) && !simple.has(&['n']),
            "gcloud" => one_file && words(&["storage", "cp"]) && !simple.has_word(&["--no-clobber", "-n"]),
            "s3cmd" => one_file && words(&["put"]) && !simple.has_word(&["--skip-existing"]),
            "rclone" => {
                one_file
                    && ["copy", "copyto", "move", "moveto"].iter().any(|word| takes(word))
                    && !simple.has_word(&["--ignore-existing", "--immutable"])
            }
            _ => false,
        };
        self.overwrites |= !guarded && (writes || redirects && !renames);
    }
}

/// A word or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String, bool),
    /// `;`, a line's end, `&`, `&&`, `||`, `|`, `(`, `)`.
    Sign(&'static str),
    /// `>` and the like: what follows is a file; `true`: it is written.
    Redirect(bool),
}

/// `None`: it is not understood.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' => drop(chars.next()),
            '#' => while chars.next_if(|&c| c != '\n').is_some() {},
            '\n' | ';' => {
                chars.next();
                chars.next_if_eq(&';').is_none().then_some(())?;
                tokens.push(Token::Sign(";"));
            }
            '&' => {
                chars.next();
                if chars.next_if_eq(&'&').is_some() {
                    tokens.push(Token::Sign("&&"));
                } else if chars.next_if_eq(&'>').is_some() {
                    tokens.push(Token::Redirect(true));
                } else {
                    tokens.push(Token::Sign("&"));
                }
            }
            '|' => {
                chars.next();
                let or = chars.next_if_eq(&'|').is_some();
                tokens.push(Token::Sign(if or { "||" } else { "|" }));
            }
            '(' | ')' => {
                chars.next();
                tokens.push(Token::Sign(if c == '(' { "(" } else { ")" }));
            }
            '>' | '<' => {
                chars.next();
                let again = chars.next_if(|&next| next == c || next == '|').is_some();
                // A here-document.
                (c == '>' || !again).then_some(())?;
                let same = chars.next_if_eq(&'&').is_some();
                tokens.push(Token::Redirect(c == '>' && !same));
            }
            _ => {
                let (word, quoted) = word(&mut chars)?;
                // `2>` is no word and a sign.
                let is_number = !quoted && word.chars().all(|c| c.is_ascii_digit());
                if !(is_number && matches!(chars.peek(), Some('>' | '<'))) {
                    tokens.push(Token::Word(word, quoted));
                }
            }
        }
    }
    Some(tokens)
}

/// The word that begins here, without its quotes, and whether it had some.
fn word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<(String, bool)> {
    let (mut word, mut quoted) = (String::new(), false);
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
            '\'' => {
                (quoted, _) = (true, chars.next());
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                (quoted, _) = (true, chars.next());
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(chars.next()?),
                        '`' => return None,
                        c => word.push(c),
                    }
                }
            }
            '\\' => {
                (quoted, _) = (true, chars.next());
                word.push(chars.next()?);
            }
            '`' => return None,
            '$' => {
                chars.next();
                if chars.peek() == Some(&'(') {
                    return None;
                }
                word.push('$');
            }
            _ => word.extend(chars.next()),
        }
    }
    Some((word, quoted))
}

fn parse(text: &str) -> Option<List> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let list = parser.list(&[])?;
    (parser.at == parser.tokens.len()).then_some(list)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// Deeper than anybody writes by hand.
const MAX_DEPTH: usize = 20;

impl Parser {
    fn sign(&mut self, sign: &str) -> bool {
        let is = matches!(self.tokens.get(self.at), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(is);
        is
    }

    fn keyword(&self) -> Option<&str> {
        match self.tokens.get(self.at) {
            Some(Token::Word(word, false)) => Some(word),
            _ => None,
        }
    }

    fn take(&mut self, keyword: &str) -> Option<()> {
        (self.keyword() == Some(keyword)).then(|| self.at += 1)
    }

    /// Up to one of these words, a `)`, or the end.
    fn list(&mut self, ends: &[&str]) -> Option<List> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut items = Vec::new();
        loop {
            while self.sign(";") {}
            let over = matches!(self.tokens.get(self.at), None | Some(Token::Sign(")")));
            if over || self.keyword().is_some_and(|word| ends.contains(&word)) {
                break;
            }
            let first = self.pipeline()?;
            let mut rest = Vec::new();
            loop {
                let and = self.sign("&&");
                if !and && !self.sign("||") {
                    break;
                }
                while self.sign(";") {}
                rest.push((and, self.pipeline()?));
            }
            let background = self.sign("&");
            let over = matches!(self.tokens.get(self.at), None | Some(Token::Sign(")")));
            items.push(Item { first, rest, background });
            if !background && !over && !self.sign(";") {
                return None;
            }
        }
        self.depth -= 1;
        Some(List(items))
    }

    fn pipeline(&mut self) -> Option<Pipeline> {
        let mut not = false;
        while self.take("!").is_some() {
            not = !not;
        }
        let mut commands = vec![self.command()?];
        while self.sign("|") {
            commands.push(self.command()?);
        }
        Some(Pipeline { not, commands })
    }

    fn command(&mut self) -> Option<Command> {
        if self.sign("(") {
            let list = self.list(&[])?;
            return self.sign(")").then_some(Command::Group(list));
        }
        match self.keyword() {
            Some("{") => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.take("}")?;
                return Some(Command::Group(list));
            }
            Some("if") => {
                self.at += 1;
                let mut branches = Vec::new();
                loop {
                    let condition = self.list(&["then"])?;
                    self.take("then")?;
                    branches.push((condition, self.list(&["elif", "else", "fi"])?));
                    if self.take("elif").is_none() {
                        break;
                    }
                }
                let otherwise = if self.take("else").is_some() { Some(self.list(&["fi"])?) } else { None };
                self.take("fi")?;
                return Some(Command::If { branches, otherwise });
            }
            Some("while" | "until" | "for" | "case" | "select" | "function" | "then" | "else" | "elif" | "fi" | "do" | "done" | "}") => {
                return None;
            }
            _ => {}
        }
        let mut simple = Simple::default();
        let mut any = false;
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Word(word, _)) => simple.words.push(word.clone()),
                Some(Token::Redirect(writes)) => {
                    self.at += 1;
                    let Some(Token::Word(file, _)) = self.tokens.get(self.at) else { return None };
                    simple.to.extend(writes.then(|| file.clone()));
                }
                _ => break,
            }
            self.at += 1;
            any = true;
        }
        any.then_some(Command::Simple(simple))
    }
}

#[cfg(test)]
mod tests {
    use super::Flaw::{CannotFail, DoesNothing, NoFile, Overwrites, Removes};
    use super::*;

    #[test]
    fn commands_that_cannot_fail() {
        for command in [
            "true",
            "/bin/true",
            "/usr/bin/true",
            " : ",
            "exit 0",
            "true;",
            "/bin/true %p",
            "echo %p",
            "sh -c 'exit 0'",
            "! false",
            "exec true",
            ": && exit 0",
            "# nothing",
        ] {
            assert_eq!(flaws(command), [DoesNothing], "{command}");
        }
        let copy = "test ! -f /a/%f && cp %p /a/%f";
        for end in [
            " || true",
            "; true",
            " || :",
            " || exit 0",
            "; exit 0",
            " || /bin/true",
            " &",
            " | logger",
            "\ntrue",
            " || echo failed",
            "; : ;",
        ] {
            assert_eq!(flaws(&format!("{copy}{end}")), [CannotFail], "{end}");
        }
        for command in [
            "(test ! -f /a/%f && cp %p /a/%f) || true",
            "{ test ! -f /a/%f && cp %p /a/%f; } || true",
            "sh -c 'test ! -f /a/%f && cp %p /a/%f || true'",
            "bash -lc \"test ! -f /a/%f && cp %p /a/%f; exit 0\"",
            "if test ! -f /a/%f; then cp %p /a/%f || true; fi",
            "wal-g wal-push %p || true",
        ] {
            assert_eq!(flaws(command), [CannotFail], "{command}");
        }
        for command in [
            "false",
            "exit 1",
            "test ! -f /a/%f && cp %p /a/%f || exit 1",
            "test ! -f /a/%f && cp %p /a/%f || false",
            "test ! -f /a/%f && cp %p /a/%f || exit 1; true",
            "set -e; test ! -f /a/%f && cp %p /a/%f; true",
            "pgbackrest --stanza=main archive-push %p",
            "bash -c 'set -o pipefail; wal-g wal-push %p | logger'",
            "true && wal-g wal-push %p",
            "bash -ec 'wal-g wal-push %p; true'",
            "envdir /etc/wal-e.d/env wal-e wal-push %p",
            "barman-wal-archive backup main %p",
            "script 'true' %p",
            "wal-g wal-push %p # || true",
            "wal-g wal-push %p && true",
            "x=$(date) || true",
            "wal-g wal-push %p; test $? = 0",
        ] {
            assert!(!flaws(command).iter().any(|flaw| [CannotFail, DoesNothing].contains(flaw)), "{command}");
        }
    }

    #[test]
    fn commands_that_overwrite() {
        for command in [
            "cp %p /a/%f",
            "cp -p \"%p\" \"/a/%f\"",
            "/bin/cp -f %p /a",
            "rsync -a %p host:/a/%f",
            "scp %p host:/a/%f",
            "gzip -c %p > /a/%f.gz",
            "gzip < %p >/a/%f.gz",
            "cat %p >> /a/%f",
            "cp %p /a/%f.tmp && mv /a/%f.tmp /a/%f",
            "test ! -f /a/%f; cp %p /a/%f",
            "cp %p /a/%f && test -f /a/%f",
            "dd if=%p of=/a/%f",
            "aws s3 cp %p s3://b/%f",
            "gsutil cp %p gs://b/%f",
            "ssh host 'cat > /a/%f' < %p",
            "install %p /a/%f",
            "sh -c 'cp %p /a/%f'",
            "umask 077; cp %p /a/%f",
            "pigz -c %p | tee /a/%f",
            "test -f /mounted && cp %p /a/%f",
            "test -f /a/%f && cp %p /a/%f",
            "rclone copyto %p r:%f",
        ] {
            assert_eq!(flaws(command), [Overwrites], "{command}");
        }
        for command in [
            "test ! -f /a/%f && cp %p /a/%f",
            "[ ! -e /a/%f ] && cp %p /a/%f",
            "! test -f /a/%f && cp %p /a/%f",
            "test -f /a/%f || cp %p /a/%f",
            "test -d /a && test ! -f /a/%f && cp %p /a/%f",
            "cp -n %p /a/%f",
            "cp -i %p /a/%f </dev/null",
            "rsync -a --ignore-existing %p host:/a/%f",
            "if [ ! -f /a/%f ]; then cp %p /a/%f; fi",
            "if [ -f /a/%f ]; then exit 1; else cp %p /a/%f; fi",
            "[ -f /a/%f ] && exit 1; cp %p /a/%f",
            "test ! -f /a/%f && cp %p /a/%f.tmp && mv /a/%f.tmp /a/%f",
            "cp %p /a/%f.tmp && ln /a/%f.tmp /a/%f",
            "set -C; gzip < %p > /a/%f.gz",
            "ssh host 'test ! -f /a/%f && cat > /a/%f' < %p",
            "test ! -f /a/%f && gzip -c %p > /a/%f.gz",
            "dd if=%p of=/a/%f conv=excl",
            "/usr/local/bin/archive %p %f",
            "wal-g wal-push %p 2>> /var/log/wal-g.log",
            "zstd %p -o /a/%f.zst",
            "while read x; do cp %p /a/%f; done",
        ] {
            assert_eq!(flaws(command), [], "{command}");
        }
        assert_eq!(flaws("cp %p /a/%f || true"), [CannotFail, Overwrites]);
    }

    #[test]
    fn commands_that_take_away_or_do_not_know_what() {
        for command in [
            "mv %p /a/%f",
            "test ! -f /a/%f && mv %p /a/%f",
            "gzip %p && mv %p.gz /a/",
            "rsync --remove-source-files --ignore-existing %p h:/a/%f",
            "test ! -f /a/%f && cp %p /a/%f && rm %p",
        ] {
            assert_eq!(flaws(command), [Removes], "{command}");
        }
        for command in ["/usr/local/bin/archive.sh", "cp %%p /archive", "pgbackrest archive-push"] {
            assert_eq!(flaws(command), [NoFile], "{command}");
        }
        for nonsense in ["", "'", "&&", "a && ", ")", "(", "if", "((((((((((((((((((((((((((((((((((((((((", "`x`", "a;;b", "%"] {
            flaws(nonsense);
        }
    }

    #[test]
    fn copies_with_a_test_before_them() {
        for command in ["cp %p /a/%f", "cp -p %p '/a/%f' || true", "cp %p /a", "cp %p /a/"] {
            assert_eq!(with_test(command).as_deref(), Some("test ! -f /a/%f && cp %p /a/%f"), "{command}");
        }
        for command in ["rsync %p /a/%f", "cp %p \"/a b/%f\"", "cp /x /y", "cp %p $X/%f", "cp %p /a/%f; cp %p /b/%f"] {
            assert_eq!(with_test(command), None, "{command}");
        }
    }
}
