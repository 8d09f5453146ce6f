//! pg_hba.conf, as far as it is about physical replication. C: libpq/hba.c; view: pg_hba_file_rules.
//!
//! The first line that fits the connection decides. A connection for physical replication fits those lines only that have the keyword
//! `replication` among their databases: `all` does not cover it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::{Client, Known, Role};

/// A line of pg_hba.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its file.
    pub file: String,
    /// Its line, counted from 1.
    pub line: u32,
    /// `local`, `host`, `hostssl`, `hostnossl`, `hostgssenc`, `hostnogssenc`.
    pub kind: String,
    /// Databases.
    pub databases: Vec<Token>,
    /// Users.
    pub users: Vec<Token>,
    /// Address, `all`, `samehost`, `samenet` or a host name; `None` for `local`.
    pub address: Option<String>,
    /// Mask of the address.
    pub netmask: Option<IpAddr>,
    /// How the client shows who it is, or `reject`.
    pub method: String,
    /// It has options, which are not kept: some are secret.
    pub has_options: bool,
    /// What the server says against the line. Where it could not read it, all other fields are empty; otherwise the line counts, and fits
    /// nothing.
    pub error: Option<String>,
}

/// A name in a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The name, without quotes.
    pub text: String,
    /// It stands in quotes, so that it is a name even if it looks like a keyword or a group. The view does not tell; where the file itself
    /// cannot be read it counts as not quoted.
    pub quoted: bool,
}

/// Whether something fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Yes.
    Yes,
    /// No.
    No,
    /// That depends on what is not known here: host names, the server's networks, TLS.
    Maybe,
}

impl Fit {
    fn of(is: bool) -> Fit {
        if is { Fit::Yes } else { Fit::No }
    }

    fn and(self, other: Fit) -> Fit {
        match (self, other) {
            (Fit::No, _) | (_, Fit::No) => Fit::No,
            (Fit::Yes, Fit::Yes) => Fit::Yes,
            _ => Fit::Maybe,
        }
    }

    fn or(self, other: Fit) -> Fit {
        match (self, other) {
            (Fit::Yes, _) | (_, Fit::Yes) => Fit::Yes,
            (Fit::No, Fit::No) => Fit::No,
            _ => Fit::Maybe,
        }
    }
}

/// Who wants to replicate.
#[derive(Clone, Debug)]
pub struct Subject<'f> {
    /// The role.
    pub user: &'f str,
    /// From where.
    pub client: &'f Client,
    /// The server's address in the same connection.
    pub server: Option<IpAddr>,
    /// The server's major version.
    pub major: u32,
    /// The server's roles.
    pub roles: &'f Known<BTreeMap<String, Role>>,
}

/// What pg_hba.conf makes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// This line lets it try its method.
    Accepted(&'r Rule),
    /// This line has the method `reject`.
    Rejected(&'r Rule),
    /// This line may fit, and decides if it does.
    Uncertain(&'r Rule),
    /// No line fits.
    NoLine,
}

/// Finds the line that decides. C: `check_hba`.
pub fn decide<'r>(rules: &'r [Rule], subject: &Subject<'_>) -> Verdict<'r> {
    for rule in rules.iter().filter(|rule| rule.error.is_none()) {
        match rule.database().and(rule.user(subject)).and(rule.origin(subject)) {
            Fit::No => {}
            Fit::Maybe => return Verdict::Uncertain(rule),
            Fit::Yes if rule.method == "reject" => return Verdict::Rejected(rule),
            Fit::Yes => return Verdict::Accepted(rule),
        }
    }
    Verdict::NoLine
}

/// Why a line that looks as if it were meant for the connection does not fit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Near<'r> {
    /// It would, were it not for the user: this name is nearly the role's.
    Misspelt(&'r Rule, &'r str),
    /// It would, were it not for the user: this name is no role's.
    NoSuchRole(&'r Rule, &'r str),
    /// It has `all` among its databases, which `replication` is not part of.
    All(&'r Rule),
    /// It has `replication` in quotes: that is an ordinary database.
    Quoted(&'r Rule),
    /// It would, were it not for the address.
    Address(&'r Rule),
    /// It would, were it not for its type: `local`, `hostssl`, …
    Kind(&'r Rule),
}

impl<'r> Near<'r> {
    /// The line.
    pub fn rule(&self) -> &'r Rule {
        match *self {
            Near::Misspelt(rule, _)
            | Near::NoSuchRole(rule, _)
            | Near::All(rule)
            | Near::Quoted(rule)
            | Near::Address(rule)
            | Near::Kind(rule) => rule,
        }
    }
}

/// The lines that were perhaps meant for the connection, the likeliest first.
pub fn near<'r>(rules: &'r [Rule], subject: &Subject<'_>) -> Vec<Near<'r>> {
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_read() && rule.method != "reject") {
        let (user, kind, address) = (rule.user(subject), rule.kind(subject), rule.address(subject));
        let origin = kind.and(address);
        let names = rule.users.iter().filter(|token| token.is_name(subject.major));
        if rule.database() == Fit::Yes && user == Fit::No && origin != Fit::No {
            for token in names {
                if is_near(&token.text, subject.user) {
                    found.push((0, Near::Misspelt(rule, &token.text)));
                } else if subject.roles.as_ref().is_ok_and(|roles| !roles.contains_key(&token.text)) {
                    found.push((1, Near::NoSuchRole(rule, &token.text)));
                }
            }
        } else if rule.database() == Fit::No && user != Fit::No && origin != Fit::No {
            if rule.databases.iter().any(|token| token.quoted && token.text == "replication") {
                found.push((1, Near::Quoted(rule)));
            } else if rule.databases.iter().any(|token| token.is_keyword("all")) {
                found.push((2, Near::All(rule)));
            }
        } else if rule.database() == Fit::Yes && user != Fit::No && kind == Fit::No {
            found.push((4, Near::Kind(rule)));
        } else if rule.database() == Fit::Yes && user != Fit::No && address == Fit::No {
            found.push((3, Near::Address(rule)));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, near)| near).collect()
}

/// User names in lines for replication that no role has, with the role of those given that is nearest.
pub fn unknown_roles<'r>(rules: &'r [Rule], major: u32, roles: &'r BTreeMap<String, Role>) -> Vec<(&'r Rule, &'r str, Option<&'r str>)> {
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.error.is_none() && rule.database() == Fit::Yes) {
        for token in rule.users.iter().filter(|token| token.is_name(major) && !roles.contains_key(&token.text)) {
            let nearest = roles.iter().filter(|(name, _)| is_near(name, &token.text));
            let nearest = nearest.min_by_key(|(name, role)| (!role.replication, strsim::osa_distance(name, &token.text)));
            found.push((rule, token.text.as_str(), nearest.map(|(name, _)| name.as_str())));
        }
    }
    found
}

/// Whether one name was perhaps meant where the other stands: another case, or an edit or two.
fn is_near(found: &str, wanted: &str) -> bool {
    // Two edits of a short name make any other.
    let edits = if wanted.chars().count() >= 8 { 2 } else { 1 };
    found != wanted && (found.eq_ignore_ascii_case(wanted) || strsim::osa_distance(found, wanted) <= edits)
}

impl Token {
    fn is_keyword(&self, word: &str) -> bool {
        !self.quoted && self.text == word
    }

    /// It names one role, and that only.
    fn is_name(&self, major: u32) -> bool {
        let is_special = !self.quoted && (self.text == "all" || self.text.starts_with('+'));
        let is_regex = major >= 16 && self.text.starts_with('/');
        !is_special && !is_regex
    }
}

impl Rule {
    /// The server could read it.
    pub fn is_read(&self) -> bool {
        !self.kind.is_empty()
    }

    /// Whether it is about physical replication. C: `check_db`.
    pub fn database(&self) -> Fit {
        Fit::of(self.databases.iter().any(|token| token.is_keyword("replication")))
    }

    /// C: `check_role`.
    fn user(&self, subject: &Subject<'_>) -> Fit {
        let fits = self.users.iter().map(|token| {
            if let Some(group) = token.text.strip_prefix('+').filter(|_| !token.quoted) {
                subject.roles.as_ref().map_or(Fit::Maybe, |roles| Fit::of(is_member(roles, subject.user, group)))
            } else if token.is_keyword("all") {
                Fit::Yes
            } else if let Some(regex) = token.text.strip_prefix('/').filter(|_| subject.major >= 16) {
                // PostgreSQL's own dialect has more; what is not understood may fit.
                regex_lite::Regex::new(regex).map_or(Fit::Maybe, |regex| Fit::of(regex.is_match(subject.user)))
            } else {
                Fit::of(token.text == subject.user)
            }
        });
        fits.fold(Fit::No, Fit::or)
    }

    /// Where the connection comes from, and how.
    fn origin(&self, subject: &Subject<'_>) -> Fit {
        self.kind(subject).and(self.address(subject))
    }

    fn kind(&self, subject: &Subject<'_>) -> Fit {
        let tls = |wanted| subject.client.tls.map_or(Fit::Maybe, |tls| Fit::of(tls == wanted));
        match (self.kind.as_str(), subject.client.address.is_some()) {
            ("local", is_tcp) => Fit::of(!is_tcp),
            (_, false) => Fit::No,
            ("host" | "hostnogssenc", true) => Fit::Yes,
            ("hostssl", true) => tls(true),
            ("hostnossl", true) => tls(false),
            // Encryption by GSSAPI is not spoken here; a standby may.
            ("hostgssenc", true) => Fit::No,
            _ => Fit::Maybe,
        }
    }

    fn address(&self, subject: &Subject<'_>) -> Fit {
        let Some(client) = subject.client.address else { return Fit::of(self.kind == "local") };
        match (self.address.as_deref(), self.netmask) {
            (None, _) => Fit::of(self.kind != "local"),
            (Some("all"), None) => Fit::Yes,
            // Whoever talks to its own address, or by the loopback, is the same host; other addresses of the server are not known.
            (Some("samehost" | "samenet"), None) if client.is_loopback() || subject.server == Some(client) => Fit::Yes,
            (Some("samehost" | "samenet"), None) => Fit::Maybe,
            (Some(address), Some(mask)) => match address.parse() {
                Ok(network) => Fit::of(is_in(client, network, mask)),
                Err(_) => Fit::Maybe,
            },
            // A host name.
            (Some(_), None) => Fit::Maybe,
        }
    }

    /// The line as one would write it, with another database or user; `…` stands for its options.
    pub fn rewritten(&self, database: Option<&str>, user: Option<(&str, &str)>) -> String {
        let list = |tokens: &[Token], change: &dyn Fn(&Token) -> Option<String>| {
            let texts: Vec<String> = tokens.iter().map(|token| change(token).unwrap_or_else(|| token.written())).collect();
            texts.join(",")
        };
        let databases = database.map_or_else(|| list(&self.databases, &|_| None), str::to_owned);
        let users = list(&self.users, &|token| user.filter(|(old, _)| *old == token.text).map(|(_, new)| name(new)));
        let mut line = format!("{} {databases} {users}", self.kind);
        if let Some(address) = &self.address {
            line.push(' ');
            line.push_str(address);
            match self.netmask {
                Some(mask) if bits(mask).is_some() => line.push_str(&format!("/{}", bits(mask).unwrap_or_default())),
                Some(mask) => line.push_str(&format!(" {mask}")),
                None => {}
            }
        }
        format!("{line} {}{}", self.method, if self.has_options { " …" } else { "" })
    }
}

impl Token {
    fn written(&self) -> String {
        if self.quoted { quoted(&self.text) } else { self.text.clone() }
    }
}

/// A name as pg_hba.conf takes it: in quotes where it would be read as something else.
pub fn name(text: &str) -> String {
    let special = ["all", "replication", "sameuser", "samerole", "samegroup"].contains(&text) || text.is_empty();
    let starts = text.starts_with(['+', '/', '@']);
    let breaks = text.contains(|c: char| c.is_whitespace() || [',', '#', '"'].contains(&c));
    if special || starts || breaks { quoted(text) } else { text.to_owned() }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The line that lets this user replicate from there.
pub fn line_for(user: &str, client: &Client, method: &str) -> String {
    let user = name(user);
    match client.address {
        None => format!("local replication {user} {method}"),
        Some(address) => format!("host replication {user} {address}/{} {method}", if address.is_ipv4() { 32 } else { 128 }),
    }
}

/// Leading ones of a mask that has nothing else.
fn bits(mask: IpAddr) -> Option<u32> {
    let (value, width) = match mask {
        IpAddr::V4(mask) => (u128::from(mask.to_bits()) << 96, 32),
        IpAddr::V6(mask) => (mask.to_bits(), 128),
    };
    let ones = value.leading_ones();
    let expected = if ones == 0 { 0 } else { u128::MAX << (128 - ones) };
    (value == expected && ones <= width).then_some(ones)
}

/// C: `pg_range_sockaddr`.
fn is_in(client: IpAddr, network: IpAddr, mask: IpAddr) -> bool {
    match (client, network, mask) {
        (IpAddr::V4(client), IpAddr::V4(network), IpAddr::V4(mask)) => (client.to_bits() ^ network.to_bits()) & mask.to_bits() == 0,
        (IpAddr::V6(client), IpAddr::V6(network), IpAddr::V6(mask)) => (client.to_bits() ^ network.to_bits()) & mask.to_bits() == 0,
        _ => false,
    }
}

/// Whether a role is a member of another, by however many steps; being superuser does not count. C: `is_member_of_role_nosuper`.
fn is_member(roles: &BTreeMap<String, Role>, user: &str, group: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![user]);
    while let Some(name) = next.pop() {
        let Some(role) = roles.get(name).filter(|_| seen.insert(name)) else { continue };
        if name == group {
            return true;
        }
        next.extend(role.member_of.iter().map(String::as_str));
    }
    false
}

/// Tells of each name in `rules` whether it stands in quotes, by the text of their file. Lines that do not say what the rule does, as with
/// names from another file (`@file`), are left alone.
pub fn find_quotes(rules: &mut [Rule], file: &str, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for rule in rules.iter_mut().filter(|rule| rule.file == file) {
        let Some(at) = usize::try_from(rule.line).ok().and_then(|line| line.checked_sub(1)) else { continue };
        // A backslash at the end goes on in the next line, 14 and later.
        let mut line = String::new();
        for part in lines.iter().skip(at) {
            match part.strip_suffix('\\') {
                Some(part) => line.push_str(part),
                None => {
                    line.push_str(part);
                    break;
                }
            }
        }
        let fields = fields(&line);
        for (tokens, found) in [(&mut rule.databases, fields.get(1)), (&mut rule.users, fields.get(2))] {
            let Some(found) = found else { continue };
            if tokens.iter().map(|token| &token.text).eq(found.iter().map(|token| &token.text)) {
                tokens.clone_from(found);
            }
        }
    }
}

/// The fields of a line: lists of names. A comma directly after a name goes on with the list. C: `next_token`, `next_field_expand`.
fn fields(line: &str) -> Vec<Vec<Token>> {
    let (mut fields, mut field) = (Vec::new(), Vec::new());
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|&c| c.is_whitespace() || c == ',').is_some() {}
        let quoted = chars.peek() == Some(&'"');
        let (mut text, mut in_quotes, mut goes_on) = (String::new(), false, false);
        while let Some(c) = chars.next_if(|&c| in_quotes || !(c.is_whitespace() || c == '#')) {
            match c {
                // Two of them in quotes are one.
                '"' if in_quotes && chars.next_if_eq(&'"').is_some() => text.push('"'),
                '"' => in_quotes = !in_quotes,
                ',' if !in_quotes => {
                    goes_on = true;
                    break;
                }
                _ => text.push(c),
            }
        }
        let is_over = chars.peek().is_none_or(|&c| c == '#');
        if quoted || !text.is_empty() {
            field.push(Token { text, quoted });
        }
        if !field.is_empty() && (is_over || !goes_on) {
            fields.push(std::mem::take(&mut field));
        }
        if is_over {
            return fields;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        let name = text.trim_matches('"');
        Token { text: name.to_owned(), quoted: name != text }
    }

    /// `host db,db user,user address/bits method`
    fn rule(line: &str) -> Rule {
        let words: Vec<&str> = line.split_whitespace().collect();
        let list = |text: &str| text.split(',').map(token).collect();
        let is_local = words[0] == "local";
        let (address, netmask) = match words[3].split_once('/').filter(|_| !is_local) {
            Some((address, bits)) => {
                let bits: u32 = bits.parse().unwrap();
                let mask: IpAddr = match address.parse::<IpAddr>().unwrap() {
                    IpAddr::V4(_) => std::net::Ipv4Addr::from_bits((u64::MAX << (32 - bits)) as u32).into(),
                    IpAddr::V6(_) => std::net::Ipv6Addr::from_bits(u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into(),
                };
                (Some(address.to_owned()), Some(mask))
            }
            None => (Some(words[3].to_owned()).filter(|_| !is_local), None),
        };
        Rule {
            file: "pg_hba.conf".to_owned(),
            line: 1,
            kind: words[0].to_owned(),
            databases: list(words[1]),
            users: list(words[2]),
            address,
            netmask,
            method: words.last().unwrap().to_string(),
            has_options: false,
            error: None,
        }
    }

    fn roles() -> Known<BTreeMap<String, Role>> {
        let role = |member_of: &[&str]| Role { member_of: member_of.iter().map(|&name| name.to_owned()).collect(), ..Role::default() };
        let roles = [("replicator", role(&["a"])), ("a", role(&["b"])), ("b", role(&["a"])), ("all", role(&[])), ("root", role(&[]))];
        Ok(roles.map(|(name, role)| (name.to_owned(), role)).into())
    }

    /// `Y`es, `N`o, `R`ejected or `?`, for `user` from `address` by TLS or not.
    fn verdict(lines: &[&str], user: &str, address: &str, tls: Option<bool>, major: u32) -> char {
        let (rules, roles): (Vec<Rule>, _) = (lines.iter().map(|line| rule(line)).collect(), roles());
        let client = Client { address: address.parse().ok(), tls };
        let subject = Subject { user, client: &client, server: "10.0.0.1".parse().ok(), major, roles: &roles };
        match decide(&rules, &subject) {
            Verdict::Accepted(_) => 'Y',
            Verdict::Rejected(_) => 'R',
            Verdict::Uncertain(_) => '?',
            Verdict::NoLine => 'N',
        }
    }

    #[test]
    fn first_line_that_fits() {
        // Lines; user, address, TLS; what comes of it.
        type Case<'c> = (&'c [&'c str], &'c str, &'c str, Option<bool>, char);
        let cases: &[Case<'_>] = &[
            (&["host replication replicator 10.0.0.0/8 trust"], "replicator", "10.9.9.9", Some(false), 'Y'),
            (&["host replication replicator 10.0.0.0/8 trust"], "replicator", "11.0.0.0", Some(false), 'N'),
            (&["host replication replicator 10.0.0.0/8 trust"], "Replicator", "10.9.9.9", Some(false), 'N'),
            (&["host replication replicator 10.0.0.0/8 trust"], "replicator", "", Some(false), 'N'),
            (&["host replication replicator 10.0.0.0/8 trust"], "replicator", "::1", Some(false), 'N'),
            (&["host replication all fe80::/10 md5"], "x", "fe80::1", Some(false), 'Y'),
            (&["host replication all ::/0 md5"], "x", "2001::1", Some(false), 'Y'),
            (&["host replication all 0.0.0.0/0 md5"], "x", "1.2.3.4", Some(false), 'Y'),
            (&["host all all 0.0.0.0/0 md5"], "x", "1.2.3.4", Some(false), 'N'),
            (&["host all,replication all 0.0.0.0/0 md5"], "x", "1.2.3.4", Some(false), 'Y'),
            (&["host \"replication\" all 0.0.0.0/0 md5"], "x", "1.2.3.4", Some(false), 'N'),
            (&["host samerole,sameuser all 0.0.0.0/0 md5"], "x", "1.2.3.4", Some(false), 'N'),
            (&["local replication all peer"], "x", "", None, 'Y'),
            (&["local replication all peer"], "x", "1.2.3.4", None, 'N'),
            (&["hostssl replication all all md5"], "x", "1.2.3.4", Some(true), 'Y'),
            (&["hostssl replication all all md5"], "x", "1.2.3.4", Some(false), 'N'),
            (&["hostssl replication all all md5"], "x", "1.2.3.4", None, '?'),
            (&["hostnossl replication all all md5"], "x", "1.2.3.4", Some(true), 'N'),
            (&["hostnossl replication all all md5"], "x", "1.2.3.4", Some(false), 'Y'),
            (&["hostgssenc replication all all gss"], "x", "1.2.3.4", Some(false), 'N'),
            (&["hostnogssenc replication all all md5"], "x", "1.2.3.4", Some(false), 'Y'),
            // Order.
            (&["host replication all all reject", "host replication all all trust"], "x", "1.2.3.4", Some(false), 'R'),
            (&["host replication other all reject", "host replication all all trust"], "x", "1.2.3.4", Some(false), 'Y'),
            (&["host all all all reject", "host replication all all trust"], "x", "1.2.3.4", Some(false), 'Y'),
            (&["host replication all db.example.org md5", "host replication all all trust"], "x", "1.2.3.4", Some(false), '?'),
            // Names of roles.
            (&["host replication +b all md5"], "replicator", "1.2.3.4", Some(false), 'Y'),
            (&["host replication +b all md5"], "root", "1.2.3.4", Some(false), 'N'),
            (&["host replication \"+b\" all md5"], "replicator", "1.2.3.4", Some(false), 'N'),
            (&["host replication +replicator all md5"], "replicator", "1.2.3.4", Some(false), 'Y'),
            (&["host replication \"all\" all md5"], "replicator", "1.2.3.4", Some(false), 'N'),
            (&["host replication \"all\" all md5"], "all", "1.2.3.4", Some(false), 'Y'),
            (&["host replication a,replicator,b all md5"], "replicator", "1.2.3.4", Some(false), 'Y'),
            // The same host and network.
            (&["host replication all samehost md5"], "x", "127.0.0.1", Some(false), 'Y'),
            (&["host replication all samehost md5"], "x", "10.0.0.1", Some(false), 'Y'),
            (&["host replication all samenet md5"], "x", "10.0.0.2", Some(false), '?'),
        ];
        for (lines, user, address, tls, expected) in cases {
            assert_eq!(verdict(lines, user, address, *tls, 15), *expected, "{lines:?} {user} {address} {tls:?}");
        }
        let regex = ["host replication /^repl.*r$ all md5"];
        assert_eq!([15, 16].map(|major| verdict(&regex, "replicator", "1.2.3.4", None, major)), ['N', 'Y']);
        assert_eq!(verdict(&regex, "other", "1.2.3.4", None, 16), 'N');
        assert_eq!(verdict(&["host replication /(?<!x)y all md5"], "replicator", "1.2.3.4", None, 16), '?');
    }

    #[test]
    fn errors_do_not_count() {
        let broken = Rule { error: Some("invalid".to_owned()), ..rule("host replication all all trust") };
        let (client, roles) = (Client { address: "1.2.3.4".parse().ok(), tls: None }, roles());
        let subject = Subject { user: "x", client: &client, server: None, major: 15, roles: &roles };
        assert_eq!(decide(&[broken], &subject), Verdict::NoLine);
    }

    #[test]
    fn lines_that_were_meant() {
        let lines = [
            "host all all 10.0.0.0/8 md5",
            "host replication postgrse 10.0.0.0/8 md5",
            "host replication Replicator,root 10.0.0.0/8 md5",
            "host replication replicatro 10.0.0.0/8 md5",
            "host replication replicator 192.168.0.0/16 md5",
            "hostssl replication replicator 10.0.0.0/8 md5",
            "host \"replication\" replicator 10.0.0.0/8 md5",
            "host replication somebody 192.168.0.0/16 md5",
        ];
        let (rules, roles): (Vec<Rule>, _) = (lines.iter().map(|line| rule(line)).collect(), roles());
        let client = Client { address: "10.0.0.7".parse().ok(), tls: Some(false) };
        let subject = Subject { user: "replicator", client: &client, server: None, major: 15, roles: &roles };
        assert_eq!(decide(&rules, &subject), Verdict::NoLine);
        let expected = [
            Near::Misspelt(&rules[2], "Replicator"),
            Near::Misspelt(&rules[3], "replicatro"),
            Near::NoSuchRole(&rules[1], "postgrse"),
            Near::Quoted(&rules[6]),
            Near::All(&rules[0]),
            Near::Address(&rules[4]),
            Near::Kind(&rules[5]),
        ];
        assert_eq!(near(&rules, &subject), expected);
        let unknown: Vec<_> = unknown_roles(&rules, 15, roles.as_ref().unwrap()).into_iter().map(|(_, name, near)| (name, near)).collect();
        let near = Some("replicator");
        assert_eq!(unknown, [("postgrse", None), ("Replicator", near), ("replicatro", near), ("somebody", None)]);
        assert_eq!(rules[3].rewritten(None, Some(("replicatro", "replicator"))), "host replication replicator 10.0.0.0/8 md5");
        assert_eq!(rules[2].rewritten(None, Some(("Replicator", "my role"))), "host replication \"my role\",root 10.0.0.0/8 md5");
    }

    #[test]
    fn quotes_of_the_file() {
        let file =
            "# comment\nhost \"replication\", \"a \"\"b\",c \"+x\" 0.0.0.0/0 md5 # end\nhost all,replication \\\n all samehost trust\n";
        let plain = |texts: &[&str]| texts.iter().map(|&text| Token { text: text.to_owned(), quoted: false }).collect::<Vec<_>>();
        let at = |line, databases: &[&str], users: &[&str]| Rule {
            file: "f".to_owned(),
            line,
            databases: plain(databases),
            users: plain(users),
            ..Rule::default()
        };
        let mut rules =
            [at(2, &["replication", "a \"b", "c"], &["+x"]), at(3, &["all", "replication"], &["all"]), at(3, &["other"], &["all"])];
        find_quotes(&mut rules, "f", file);
        let quoted: Vec<bool> = rules[0].databases.iter().chain(&rules[0].users).map(|token| token.quoted).collect();
        assert_eq!(quoted, [true, true, false, true]);
        assert_eq!(rules[1], at(3, &["all", "replication"], &["all"]));
        assert_eq!(rules[2], at(3, &["other"], &["all"]));
        find_quotes(&mut rules, "f", "host \"unterminated");
        find_quotes(&mut rules, "f", "");
    }

    #[test]
    fn names_and_masks() {
        assert_eq!(["x", "all", "a b", "+x", "a\"b"].map(name), ["x", "\"all\"", "\"a b\"", "\"+x\"", "\"a\"\"b\""]);
        let mask = |text: &str| bits(text.parse().unwrap());
        assert_eq!(
            ["255.255.255.255", "255.255.0.0", "0.0.0.0", "255.0.255.0", "ffff::", "::"].map(mask),
            [Some(32), Some(16), Some(0), None, Some(16), Some(0)]
        );
        let client = |address: &str| Client { address: address.parse().ok(), tls: None };
        assert_eq!(line_for("r", &client("10.0.0.7"), "scram-sha-256"), "host replication r 10.0.0.7/32 scram-sha-256");
        assert_eq!(line_for("r", &client("::1"), "md5"), "host replication r ::1/128 md5");
        assert_eq!(line_for("r", &client(""), "md5"), "local replication r md5");
    }
}
