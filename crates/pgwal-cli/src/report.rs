//! Findings in the forms that CI systems show: JUnit XML and SARIF.
//!
//! quick-junit is what cargo-nextest writes its reports with; 0.5 writes no attribute that Jenkins's schema lacks (later ones put `skipped`
//! on `testsuites`). serde-sarif's types are made from the schema of SARIF 2.1.0 itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

use pgwal::check::Finding;
use pgwal::printable::printable;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;
use serde_sarif::sarif;

/// Writes one test case for each input; it fails where the input has findings.
///
/// Inputs with findings only (a segment that is missing) may come behind the others.
pub fn junit<'a>(inputs: impl IntoIterator<Item = (&'a str, Vec<&'a Finding>)>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut suite = TestSuite::new("pgwal verify");
    for (input, findings) in inputs {
        let status = match findings.as_slice() {
            [] => TestCaseStatus::success(),
            [first, further @ ..] => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_type(first.class.name());
                match further.len() {
                    0 => status.set_message(first.class.to_string()),
                    more => status.set_message(format!("{}; {more} more", first.class)),
                };
                let paragraphs: Vec<String> = findings.iter().map(ToString::to_string).collect();
                status.set_description(paragraphs.join("\n"));
                status
            }
        };
        let mut case = TestCase::new(printable(input).to_string(), status);
        case.set_classname("pgwal.verify");
        suite.add_test_case(case);
    }
    let mut report = Report::new("pgwal verify");
    report.add_test_suite(suite);
    Ok(report.serialize(out)?)
}

/// Writes one result for each finding; each class of findings is a rule.
pub fn sarif<'a>(inputs: impl IntoIterator<Item = (&'a str, Vec<&'a Finding>)>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let (mut rules, mut results, mut artifacts) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (input, findings) in inputs {
        let artifact = i64::try_from(artifacts.len())?;
        let location = sarif::ArtifactLocation::builder().uri(uri(input)).index(artifact).build();
        artifacts.push(sarif::Artifact::builder().location(sarif::ArtifactLocation::builder().uri(uri(input)).build()).build());
        for finding in findings {
            let name = finding.class.name();
            rules.entry(name).or_insert_with(|| rule(finding));
            results.push(result(finding, location.clone())?);
        }
    }
    let driver = sarif::ToolComponent::builder()
        .name("pgwal")
        .version(env!("CARGO_PKG_VERSION"))
        .rules(rules.into_values().collect::<Vec<_>>())
        .build();
    let run = sarif::Run::builder().tool(sarif::Tool::builder().driver(driver).build()).artifacts(artifacts).results(results).build();
    let log = sarif::Sarif::builder().version(json!("2.1.0")).schema(SCHEMA).runs(vec![run]).build();
    pgwal::json::to_writer_pretty(&mut *out, &log)?;
    Ok(writeln!(out)?)
}

/// Where the schema of SARIF 2.1.0 is published.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

fn rule(finding: &Finding) -> sarif::ReportingDescriptor {
    let help = sarif::MultiformatMessageString::builder().text(finding.class.action().to_string()).build();
    let name = finding.class.name();
    let short = sarif::MultiformatMessageString::builder().text(name.replace('_', " ")).build();
    sarif::ReportingDescriptor::builder().id(name).short_description(short).help(help).build()
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
    use pgwal::{Lsn, SegmentName};

    use super::*;

    fn finding(input: &str, offsets: Option<std::ops::Range<u64>>, class: Class) -> Finding {
        let lsns = offsets.as_ref().map(|offsets| Lsn(1 << 24) + offsets.start..Lsn(1 << 24) + offsets.end);
        Finding { input: input.to_owned(), segment: None, offsets, lsns, record: None, class, problem: None }
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

    fn written(write: impl FnOnce(Vec<(&str, Vec<&Finding>)>, &mut Vec<u8>)) -> String {
        let inputs = inputs();
        let mut out = Vec::new();
        write(inputs.iter().map(|(input, findings)| (*input, findings.iter().collect())).collect(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn junit_is_what_jenkins_reads() {
        let xml = written(|inputs, out| junit(inputs, out).unwrap());
        assert_eq!(junit_errors(&xml), [""; 0], "{xml}");
        assert!(xml.contains("tests=\"4\"") && xml.contains("failures=\"3\""), "{xml}");
        let failure = "type=\"torn_page\"";
        assert!(xml.contains(failure) && xml.contains("512-byte pieces were written; 1 more"), "{xml}");
        // The check can fail.
        assert!(!junit_errors(&xml.replace("name=\"000000010000000000000001\"", "")).is_empty());
        assert!(!junit_errors(&xml.replace("testcase", "testcases")).is_empty());
        let none = written(|_, out| junit([], out).unwrap());
        assert_eq!(junit_errors(&none), [""; 0]);
    }

    fn junit_errors(xml: &str) -> Vec<String> {
        let schema = uppsala::parse(include_str!("../../../tests/schemas/junit.xsd")).unwrap();
        let schema = uppsala::XsdValidator::from_schema(&schema).unwrap();
        schema.validate(&uppsala::parse(xml).unwrap()).iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn sarif_is_what_its_schema_says() {
        let text = written(|inputs, out| sarif(inputs, out).unwrap());
        let log: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(sarif_errors(&log), [""; 0], "{text}");
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), 4);
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
        assert_eq!(rules, ["missing_segment", "not_zero", "torn_page", "unreadable"]);
        // The check can fail.
        let mut bad = log.clone();
        bad["runs"][0]["results"][0]["level"] = json!("bad");
        assert!(!sarif_errors(&bad).is_empty());
        let none = written(|_, out| sarif([], out).unwrap());
        assert_eq!(sarif_errors(&serde_json::from_str(&none).unwrap()), [""; 0]);
    }

    fn sarif_errors(log: &serde_json::Value) -> Vec<String> {
        let schema = serde_json::from_str(include_str!("../../../tests/schemas/sarif-2.1.0.json")).unwrap();
        let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        schema.iter_errors(log).map(|error| error.to_string()).collect()
    }
}
