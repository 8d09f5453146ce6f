//! `synchronous_standby_names`. C: replication/syncrep_gram.y.

/// Whom commits wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Synchronous {
    /// How many must have answered.
    pub needed: usize,
    /// By `application_name`; `*` is any.
    pub names: Vec<String>,
}

impl Synchronous {
    /// Reads `FIRST n (a, b)`, `ANY n (a, b)`, `n (a, b)` or `a, b`. `None`: it is empty, which asks for nobody, or makes no sense.
    pub fn parse(text: &str) -> Option<Synchronous> {
        let text = text.trim();
        let (needed, list) = match text.split_once('(') {
            Some((before, list)) if !before.contains('"') => {
                let number = before.split_whitespace().next_back()?;
                (number.parse().ok()?, list.trim_end().strip_suffix(')')?)
            }
            _ => (1, text),
        };
        let names = names(list);
        (!names.is_empty()).then_some(Synchronous { needed, names })
    }

    /// Whether it names a standby that calls itself so. Case does not matter. C: `SyncRepGetStandbyPriority`.
    pub fn has(&self, application_name: &str) -> bool {
        self.names.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
    }
}

/// Names with commas between them, those in quotes with anything in them.
pub(super) fn names(list: &str) -> Vec<String> {
    let (mut names, mut name, mut in_quotes) = (Vec::new(), String::new(), false);
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if in_quotes && chars.next_if_eq(&'"').is_some() => name.push('"'),
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => names.push(std::mem::take(&mut name)),
            c if c.is_whitespace() && !in_quotes => {}
            c => name.push(c),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parsed = |text| Synchronous::parse(text).map(|sync| (sync.needed, sync.names.join("|")));
        let some = |needed, names: &str| Some((needed, names.to_owned()));
        assert_eq!(parsed("a"), some(1, "a"));
        assert_eq!(parsed(" a , b"), some(1, "a|b"));
        assert_eq!(parsed("*"), some(1, "*"));
        assert_eq!(parsed("2 (a, b)"), some(2, "a|b"));
        assert_eq!(parsed("FIRST 1(a)"), some(1, "a"));
        assert_eq!(parsed("any 2 (a, \"b, (c)\", d)"), some(2, "a|b, (c)|d"));
        assert_eq!(parsed("\"a(b\", \"c\"\"d\""), some(1, "a(b|c\"d"));
        assert_eq!([parsed(""), parsed("  "), parsed("FIRST (a)"), parsed("2 (a")], [None, None, None, None]);
        let sync = Synchronous::parse("First 1 (A, b)").unwrap();
        assert!(sync.has("a") && sync.has("B") && !sync.has("c") && Synchronous::parse("*").unwrap().has("c"));
    }
}
