//! Findings in the forms that CI systems show: JUnit XML and SARIF.
//!
//! Both are written one finding after the other, as there may be hundreds of thousands. quick-xml escapes and nests; what is nested is the
//! part of JUnit's schema that Jenkins knows. serde-sarif's types are made from the schema of SARIF 2.1.0 itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};

use pgwal::check::Finding;
use pgwal::printable::printable_lines;
use pgwal::reach::{Outcome, Reach};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use serde::ser::{Error as _, Serialize, SerializeSeq, Serializer};
use serde_sarif::sarif;

/// An input and its findings.
pub type Input<'a> = (&'a str, Vec<&'a Finding>);

/// Writes one test case per input, which fails if the input has findings.
///
/// Inputs that exist only as findings, such as a missing segment, may follow the others. The last test case is whether a restore reaches its
/// target.
pub fn junit(inputs: &[Input<'_>], restore: Option<&Reach>, out: &mut impl Write) -> io::Result<()> {
    let tests = (inputs.len() + restore.iter().count()).to_string();
    let failures = inputs.iter().filter(|(_, findings)| !findings.is_empty()).count();
    let failures = (failures + restore.iter().filter(|answer| !answer.is_yes()).count()).to_string();
    let counts = [("name", "pgwal verify"), ("tests", &*tests), ("failures", &*failures), ("errors", "0")];
    let mut xml = Writer::new_with_indent(&mut *out, b' ', 4);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    xml.create_element("testsuites").with_attributes(counts).write_inner_content(|xml| {
        let suite = xml.create_element("testsuite").with_attributes(counts).with_attribute(("disabled", "0"));
        suite.write_inner_content(|xml| {
            inputs.iter().try_for_each(|(input, findings)| test_case(input, findings, xml))?;
            restore.map_or(Ok(()), |answer| restore_case(answer, xml))
        })?;
        Ok(())
    })?;
    writeln!(out)
}

fn test_case(input: &str, findings: &[&Finding], xml: &mut Writer<impl Write>) -> io::Result<()> {
    let case = xml.create_element("testcase").with_attributes([("name", &*for_xml(input)), ("classname", "pgwal.verify")]);
    let Some((first, further)) = findings.split_first() else { return case.write_empty().map(drop) };
    let message = match further.len() {
        0 => first.class.to_string(),
        more => format!("{}; {more} more", first.class),
    };
    case.write_inner_content(|xml| {
        let failure = xml.create_element("failure").with_attributes([("type", first.class.name()), ("message", &*for_xml(&message))]);
        let text = |text: &str, xml: &mut Writer<_>| xml.write_event(Event::Text(BytesText::new(text)));
        failure.write_inner_content(|xml| {
            text(&for_xml(&first.to_string()), xml)?;
            further.iter().try_for_each(|finding| text(&for_xml(&format!("\n{finding}")), xml))
        })?;
        Ok(())
    })?;
    Ok(())
}

fn restore_case(answer: &Reach, xml: &mut Writer<impl Write>) -> io::Result<()> {
    let name = for_xml(&format!("restore to {}", answer.target));
    let case = xml.create_element("testcase").with_attributes([("name", &*name), ("classname", "pgwal.verify.restore")]);
    let said = for_xml(&answer.to_string());
    let notes: String = answer.caveats.iter().map(|caveat| format!("\nnote: {caveat}")).collect();
    let all = format!("{said}{}", for_xml(&notes));
    case.write_inner_content(|xml| {
        if !answer.is_yes() {
            let kind = format!("restore_{}", answer.verdict());
            let failure = xml.create_element("failure").with_attributes([("type", &*kind), ("message", &*said)]);
            failure.write_text_content(BytesText::new(&said))?;
        }
        xml.create_element("system-out").write_text_content(BytesText::new(&all))?;
        Ok(())
    })?;
    Ok(())
}

/// Text without the characters that no XML may have, not even escaped.
fn for_xml(text: &str) -> String {
    printable_lines(text).to_string().replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// Writes one result for each finding; each class of findings is a rule. Whether a restore reaches its target is the last result: it passes,
/// fails, or is open.
pub fn sarif(inputs: &[Input<'_>], restore: Option<&Reach>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut rules = BTreeMap::new();
    for finding in inputs.iter().flat_map(|(_, findings)| findings) {
        rules.entry(finding.class.name()).or_insert_with(|| rule(finding));
    }
    if restore.is_some() {
        rules.insert(RESTORE, restore_rule());
    }
    let driver = sarif::ToolComponent::builder()
        .name("pgwal")
        .version(env!("CARGO_PKG_VERSION"))
        .rules(rules.into_values().collect::<Vec<_>>())
        .build();
    let run = Run { tool: sarif::Tool::builder().driver(driver).build(), artifacts: Artifacts(inputs), results: Results(inputs, restore) };
    pgwal::json::to_writer_pretty(&mut *out, &Log { schema: SCHEMA, version: "2.1.0", runs: [run] })?;
    Ok(writeln!(out)?)
}

/// `sarif::Sarif`, whose results are made while they are written.
#[derive(serde::Serialize)]
struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'a>; 1],
}

/// `sarif::Run`, likewise.
#[derive(serde::Serialize)]
struct Run<'a> {
    tool: sarif::Tool,
    artifacts: Artifacts<'a>,
    results: Results<'a>,
}

struct Artifacts<'a>(&'a [Input<'a>]);

impl Serialize for Artifacts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let artifact = |uri| sarif::Artifact::builder().location(sarif::ArtifactLocation::builder().uri(uri).build()).build();
        serializer.collect_seq(self.0.iter().map(|(input, _)| artifact(uri(input))))
    }
}

struct Results<'a>(&'a [Input<'a>], Option<&'a Reach>);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut results = serializer.serialize_seq(None)?;
        for (artifact, (input, findings)) in (0..).zip(self.0) {
            let location = sarif::ArtifactLocation::builder().uri(uri(input)).index(artifact).build();
            for finding in findings {
                results.serialize_element(&result(finding, location.clone()).map_err(S::Error::custom)?)?;
            }
        }
        if let Some(answer) = self.1 {
            results.serialize_element(&restore_result(answer).map_err(S::Error::custom)?)?;
        }
        results.end()
    }
}

/// Where the schema of SARIF 2.1.0 is published.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

fn rule(finding: &Finding) -> sarif::ReportingDescriptor {
    let help = sarif::MultiformatMessageString::builder().text(finding.class.action().to_string()).build();
    let name = finding.class.name();
    let short = sarif::MultiformatMessageString::builder().text(name.replace('_', " ")).build();
    sarif::ReportingDescriptor::builder().id(name).short_description(short).help(help).build()
}

/// The rule of the answer to `--reach`.
const RESTORE: &str = "restore";

fn restore_rule() -> sarif::ReportingDescriptor {
    let text = "Take the files that are named from another copy of the WAL, or another base backup, or another target.";
    let help = sarif::MultiformatMessageString::builder().text(text).build();
    let short = sarif::MultiformatMessageString::builder().text("a restore reaches its target").build();
    sarif::ReportingDescriptor::builder().id(RESTORE).short_description(short).help(help).build()
}

fn restore_result(answer: &Reach) -> Result<sarif::Result, Box<dyn Error>> {
    // Other kinds than a failure have no level.
    let (kind, level) = match answer.outcome {
        Outcome::Yes { .. } => (sarif::ResultKind::Pass, sarif::ResultLevel::None),
        Outcome::No { .. } => (sarif::ResultKind::Fail, sarif::ResultLevel::Error),
        Outcome::Unknown { .. } => (sarif::ResultKind::Open, sarif::ResultLevel::None),
    };
    let location = |input: &str| {
        let place = sarif::PhysicalLocation::builder().artifact_location(sarif::ArtifactLocation::builder().uri(uri(input)).build());
        sarif::Location::builder().physical_location(place.build()).build()
    };
    let properties = BTreeMap::from([(RESTORE.to_owned(), serde_json::to_value(answer)?)]);
    Ok(sarif::Result::builder()
        .rule_id(RESTORE)
        .kind(kind)
        .level(level)
        .message(sarif::Message::builder().text(answer.to_string()).build())
        .locations(answer.input().map(location).into_iter().collect::<Vec<_>>())
        .partial_fingerprints(BTreeMap::from([("place/v1".to_owned(), format!("{RESTORE}:{}", answer.target))]))
        .properties(sarif::PropertyBag::builder().additional_properties(properties).build())
        .build())
}

fn result(finding: &Finding, artifact: sarif::ArtifactLocation) -> Result<sarif::Result, Box<dyn Error>> {
    let place = sarif::PhysicalLocation::builder().artifact_location(artifact);
    let place = match &finding.offsets {
        Some(offsets) => {
            let len = i64::try_from(offsets.end.saturating_sub(offsets.start))?;
            place.region(sarif::Region::builder().byte_offset(i64::try_from(offsets.start)?).byte_length(len).build()).build()
        }
        None => place.build(),
    };
    // The same damage is the same result in the next run.
    let offset = finding.offsets.as_ref().map_or_else(String::new, |offsets| offsets.start.to_string());
    let fingerprint = format!("{}:{}:{offset}", finding.class.name(), finding.input);
    let properties = BTreeMap::from([("finding".to_owned(), serde_json::to_value(finding)?)]);
    Ok(sarif::Result::builder()
        .rule_id(finding.class.name())
        .level(sarif::ResultLevel::Error)
        .message(sarif::Message::builder().text(finding.to_string()).build())
        .locations(vec![sarif::Location::builder().physical_location(place).build()])
        .partial_fingerprints(BTreeMap::from([("place/v1".to_owned(), fingerprint)]))
        .properties(sarif::PropertyBag::builder().additional_properties(properties).build())
        .build())
}

/// An input as a URI: relative where its path is, and with everything quoted that means something else in a URI.
fn uri(input: &str) -> String {
    let mut uri = String::from(if input.starts_with('/') { "file://" } else { "" });
    for &byte in input.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(byte.into()),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use pgwal::check::Class;
    use pgwal::reach::{Caveat, HowFar, Obstacle, Target};
    use pgwal::{Lsn, SegmentName};
    use serde_json::json;

    use super::*;

    fn finding(input: &str, offsets: Option<std::ops::Range<u64>>, class: Class) -> Finding {
        let lsns = offsets.as_ref().map(|offsets| Lsn(1 << 24) + offsets.start..Lsn(1 << 24) + offsets.end);
        Finding { input: input.to_owned(), segment: None, offsets, lsns, record: None, class, problem: None, whole_copy: None }
    }

    /// Some of everything, with names that neither XML nor a URI takes as they are.
    fn inputs() -> Vec<(&'static str, Vec<Finding>)> {
        let missing: SegmentName = "000000010000000000000003".parse().unwrap();
        let torn = "/backup/a & b/<100%>/000000010000000000000002";
        let member = "archive.tar:wal/000000010000000000000004";
        vec![
            ("000000010000000000000001", vec![]),
            (torn, vec![finding(torn, Some(0x2000..0x4000), Class::TornPage { sector: 512 }), finding(torn, Some(9..10), Class::NotZero)]),
            (member, vec![finding(member, None, Class::Unreadable { reason: "no \u{1} \"end\" ]]>".to_owned() })]),
            (
                "000000010000000000000003",
                vec![finding("000000010000000000000003", None, Class::MissingSegment { first: missing, last: missing })],
            ),
        ]
    }

    /// A restore that does not reach its target.
    fn no() -> Reach {
        let segment: SegmentName = "000000010000000000000003".parse().unwrap();
        let how_far = HowFar { end: Lsn(9), last_transaction: None, file: Some("a & b".to_owned()), opens: false, copies: Vec::new() };
        Reach {
            target: Target::Name("<before>".to_owned()),
            inclusive: true,
            backup: None,
            timeline: None,
            start: None,
            backup_end: None,
            consistent: None,
            files: Vec::new(),
            caveats: vec![Caveat::NoBackup { start: Lsn(8) }],
            outcome: Outcome::No { obstacle: Obstacle::Missing { segment, end: None, gap: true, partial: None }, how_far: Some(how_far) },
        }
    }

    fn written(write: impl FnOnce(&[Input<'_>], &mut Vec<u8>)) -> String {
        let inputs = inputs();
        let mut out = Vec::new();
        let inputs: Vec<Input<'_>> = inputs.iter().map(|(input, findings)| (*input, findings.iter().collect())).collect();
        write(&inputs, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn junit_is_what_jenkins_reads() {
        let xml = written(|inputs, out| junit(inputs, Some(&no()), out).unwrap());
        assert_eq!(junit_errors(&xml), [""; 0], "{xml}");
        assert!(xml.contains("tests=\"5\"") && xml.contains("failures=\"4\""), "{xml}");
        let failure = "type=\"torn_page\"";
        assert!(xml.contains(failure) && xml.contains("512-byte pieces were written; 1 more"), "{xml}");
        // The check can fail.
        assert!(!junit_errors(&xml.replace("name=\"000000010000000000000001\"", "")).is_empty());
        assert!(!junit_errors(&xml.replace("testcase", "testcases")).is_empty());
        let none = written(|_, out| junit(&[], None, out).unwrap());
        assert_eq!(junit_errors(&none), [""; 0]);
    }

    fn junit_errors(xml: &str) -> Vec<String> {
        let schema = uppsala::parse(include_str!("../../../tests/schemas/junit.xsd")).unwrap();
        let schema = uppsala::XsdValidator::from_schema(&schema).unwrap();
        schema.validate(&uppsala::parse(xml).unwrap()).iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn sarif_is_what_its_schema_says() {
        let text = written(|inputs, out| sarif(inputs, Some(&no()), out).unwrap());
        let log: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(sarif_errors(&log), [""; 0], "{text}");
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), 5);
        assert_eq!(
            (&results[4]["kind"], &results[4]["level"], &results[4]["ruleId"]),
            (&"fail".into(), &"error".into(), &"restore".into())
        );
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(
            place["artifactLocation"],
            json!({"uri": "file:///backup/a%20%26%20b/%3C100%25%3E/000000010000000000000002", "index": 1})
        );
        assert_eq!(place["region"], json!({"byteOffset": 0x2000, "byteLength": 0x2000}));
        assert_eq!(results[0]["ruleId"], "torn_page");
        assert_eq!(results[0]["properties"]["finding"]["lsns"]["start"], "0/01002000");
        assert_eq!(log["runs"][0]["artifacts"][2]["location"]["uri"], "archive.tar%3Awal/000000010000000000000004");
        let rules: Vec<&str> =
            log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        assert_eq!(rules, ["missing_segment", "not_zero", "restore", "torn_page", "unreadable"]);
        // The check can fail.
        let mut bad = log.clone();
        bad["runs"][0]["results"][0]["level"] = json!("bad");
        assert!(!sarif_errors(&bad).is_empty());
        let none = written(|_, out| sarif(&[], None, out).unwrap());
        assert_eq!(sarif_errors(&serde_json::from_str(&none).unwrap()), [""; 0]);
    }

    fn sarif_errors(log: &serde_json::Value) -> Vec<String> {
        let schema = serde_json::from_str(include_str!("../../../tests/schemas/sarif-2.1.0.json")).unwrap();
        let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        schema.iter_errors(log).map(|error| error.to_string()).collect()
    }
}
