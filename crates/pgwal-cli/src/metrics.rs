//! What a run of `pgwal verify` came to as metrics, in Prometheus's text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! A handful of gauges that are written once: a client library, with its registry and its server, would be more code than this.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgwal::check::Summary;
use pgwal::printable::printable;

/// What is told of a run.
pub struct Run<'a> {
    /// What was verified: it tells this run's metrics from those of others.
    pub path: &'a str,
    /// What the check came to.
    pub summary: &'a Summary,
    /// Findings by the names of their classes.
    pub classes: &'a BTreeMap<&'static str, u64>,
    /// Segments that were not read again.
    pub unchanged: usize,
    /// Whether recovery reaches the target, where that was asked for.
    pub reaches: Option<bool>,
    /// How long the run took.
    pub took: Duration,
}

/// Writes them.
pub fn write(run: &Run<'_>, now: SystemTime, out: &mut impl Write) -> io::Result<()> {
    let path = label(run.path);
    let mut gauge = |name: &str, help: &str, values: &[(String, String)]| -> io::Result<()> {
        writeln!(out, "# HELP pgwal_verify_{name} {help}\n# TYPE pgwal_verify_{name} gauge")?;
        values.iter().try_for_each(|(labels, value)| writeln!(out, "pgwal_verify_{name}{{path=\"{path}\"{labels}}} {value}"))
    };
    let one = |value: String| [(String::new(), value)];
    let summary = run.summary;
    let ended = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge("findings", "Findings of the last run.", &one(summary.findings.to_string()))?;
    let classes: Vec<_> = run.classes.iter().map(|(class, count)| (format!(",class=\"{class}\""), count.to_string())).collect();
    if !classes.is_empty() {
        gauge("class_findings", "Findings of the last run by class.", &classes)?;
    }
    if let Some(reaches) = run.reaches {
        gauge("target_reachable", "Whether recovery reaches the target: 1 yes, 0 no.", &one(u8::from(reaches).to_string()))?;
    }
    gauge("segments", "Segments that the last run read.", &one(summary.segments.to_string()))?;
    gauge("unchanged_segments", "Segments that the last run did not read again.", &one(run.unchanged.to_string()))?;
    gauge("records", "Records that the last run checked.", &one(summary.records.to_string()))?;
    gauge("bytes", "Bytes that the last run checked.", &one(summary.bytes.to_string()))?;
    gauge("duration_seconds", "Duration of the last run.", &one(format!("{:.3}", run.took.as_secs_f64())))?;
    gauge("last_run_timestamp_seconds", "When the last run ended, in seconds since 1970.", &one(ended.as_secs().to_string()))
}

/// A value of a label.
fn label(text: &str) -> String {
    let escaped = |line: &str| printable(line).to_string().replace('\\', "\\\\").replace('"', "\\\"");
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format() {
        let summary = Summary { findings: 3, segments: 2, records: 10, bytes: 2 << 20, ..Summary::default() };
        let classes = BTreeMap::from([("bit_flip", 1), ("torn_page", 2)]);
        let run = Run {
            path: "/a \"b\"\\c\nd\x1b",
            summary: &summary,
            classes: &classes,
            unchanged: 7,
            reaches: Some(false),
            took: Duration::from_millis(1500),
        };
        let mut out = Vec::new();
        write(&run, UNIX_EPOCH + Duration::from_secs(1_000_000_000), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let path = "path=\"/a \\\"b\\\"\\\\c\\nd\\\\x1b\"";
        for line in [
            "# TYPE pgwal_verify_findings gauge".to_owned(),
            format!("pgwal_verify_findings{{{path}}} 3"),
            format!("pgwal_verify_class_findings{{{path},class=\"bit_flip\"}} 1"),
            format!("pgwal_verify_class_findings{{{path},class=\"torn_page\"}} 2"),
            format!("pgwal_verify_target_reachable{{{path}}} 0"),
            format!("pgwal_verify_unchanged_segments{{{path}}} 7"),
            format!("pgwal_verify_duration_seconds{{{path}}} 1.500"),
            format!("pgwal_verify_last_run_timestamp_seconds{{{path}}} 1000000000"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.lines().any(pgwal::printable::has_unprintable) && text.ends_with('\n'));
        // Each name is described once, before its values.
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let values = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('{').next().unwrap());
        let mut values: Vec<&str> = values.collect();
        values.dedup();
        assert_eq!(names, values);
    }
}
