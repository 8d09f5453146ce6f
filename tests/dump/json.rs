//! JSON Lines: every record of every fixture, against the documented schema and against the text.

use std::path::Path;

use pgwal_testkit::fixtures;
use serde_json::Value;

use crate::fixtures::{runs, with_any_threads};

#[test]
fn every_record_is_as_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgwal/schema/record.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).expect("the schema itself");
    let validator = jsonschema::validator_for(&schema).unwrap();
    for fixture in fixtures::with_odd() {
        let dir = fixture.unpacked();
        for real in runs(&fixture).iter().filter(|run| !run.args[0].starts_with('-')) {
            let mut args = real.args.clone();
            args.splice(0..0, ["--format".to_owned(), "json".to_owned()]);
            let what = format!("v{}/{} {}", fixture.major, fixture.scenario, args.join(" "));
            let ran = with_any_threads(dir.path(), &args);
            assert_eq!(ran.status, 0, "{what}: {}", ran.stderr);
            let json = String::from_utf8(ran.stdout).expect("UTF-8");
            let text = String::from_utf8_lossy(&real.stdout);
            assert_eq!(json.lines().count(), text.lines().count(), "{what}");
            for (json, text) in json.lines().zip(text.lines()) {
                let record: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{what}: {e}: {json}"));
                if let Err(error) = validator.validate(&record) {
                    panic!("{what}: {}: {error}: {}", error.instance_path, &json[..json.len().min(3000)]);
                }
                let head = format!(
                    "rmgr: {:<11} len (rec/tot): {:>6}/{:>6}, tx: {:>10}, lsn: {}, prev {}, desc: {} ",
                    record["rmgr"].as_str().unwrap(),
                    record["record_len"].as_u64().unwrap(),
                    record["total_len"].as_u64().unwrap(),
                    record["xid"].as_u64().unwrap(),
                    record["lsn"].as_str().unwrap(),
                    record["prev"].as_str().unwrap(),
                    record["opcode"].as_str().unwrap(),
                );
                assert!(text.starts_with(&head), "{what}:\n{text}\n{head}");
                let blocks = record["blocks"].as_array().unwrap();
                assert_eq!(blocks.len(), text.matches(", blkref #").count(), "{what}:\n{text}");
                assert!(record.get("error").is_none(), "{what}: {json}");
            }
        }
    }
}

/// Whoever reads the schema finds out what each field means.
#[test]
fn every_property_is_described() {
    fn look(value: &Value, place: &str, count: &mut usize) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let is_tag = property.get("const").is_some();
                assert!(is_tag || property["description"].as_str().is_some_and(|text| !text.is_empty()), "{place}.{name}");
                *count += 1;
            }
        }
        match value {
            Value::Object(parts) => parts.iter().filter(|part| *part.0 != "if").for_each(|(name, part)| {
                if !(place == "allOf" && name == "then") {
                    look(part, name, count);
                }
            }),
            Value::Array(parts) => parts.iter().for_each(|part| look(part, place, count)),
            _ => {}
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgwal/schema/record.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut count = 0;
    look(&schema, "record", &mut count);
    assert!(count > 500, "{count}");
}

#[test]
fn the_schema_refuses_what_is_not_in_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgwal/schema/record.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let fixture = fixtures::all().into_iter().find(|f| f.major == 17 && f.scenario == "pgbench").unwrap();
    let dir = fixture.unpacked();
    let ran = with_any_threads(dir.path(), &["--format", "json", "-r", "Heap", "-n", "200", "."]);
    let json = String::from_utf8(ran.stdout).unwrap();
    let good: Value =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).find(|r: &Value| r["payload"]["op"] == "insert").unwrap();
    assert!(validator.is_valid(&good));
    let spoil: [&dyn Fn(&mut Value); 9] = [
        &|r| r["more"] = 1.into(),
        &|r| r["lsn"] = 16.into(),
        &|r| r["rmgr"] = "Head".into(),
        &|r| r["payload"]["more"] = 1.into(),
        &|r| r["payload"]["op"] = "insect".into(),
        &|r| r["payload"]["offnum"] = "1".into(),
        &|r| r["payload"]["offnum"] = 65536.into(),
        &|r| r["payload"]["flags"] = serde_json::json!(["XLH_INSERT_ON_TUESDAY"]),
        &|r| r["blocks"][0]["fork"] = "side".into(),
    ];
    for (at, spoil) in spoil.iter().enumerate() {
        let mut bad = good.clone();
        spoil(&mut bad);
        assert!(!validator.is_valid(&bad), "change {at}");
    }
}
