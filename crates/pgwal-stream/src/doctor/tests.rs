//! Every point, with facts that no server had to be set up for.

use std::collections::BTreeMap;

use pgwal::history::{Ancestor, History};
use pgwal::{Lsn, TimelineId};

use super::facts::{Archiver, Client, Endpoint, Identity, PrimaryConninfo, Ready, Receiver, Refusal, Role, Sender, Summarizer};
use super::hba::{Rule, Token};
use super::*;
use crate::slots::Slot;

fn set(server: &mut Server, name: &str, value: &str) {
    server.settings.as_mut().unwrap().insert(name.to_owned(), Setting { value: value.to_owned(), ..Setting::default() });
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, Setting> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Setting { value: (*value).to_owned(), ..Setting::default() })).collect()
}

/// A server without mistakes.
fn server() -> Server {
    let token = |text: &str| Token { text: text.to_owned(), quoted: false };
    let rule = Rule {
        file: "/etc/pg_hba.conf".to_owned(),
        line: 7,
        kind: "host".to_owned(),
        databases: vec![token("replication")],
        users: vec![token("replicator")],
        address: Some("10.0.0.0".to_owned()),
        netmask: "255.0.0.0".parse().ok(),
        method: "scram-sha-256".to_owned(),
        has_options: false,
        error: None,
    };
    let role = Role { replication: true, login: true, ..Role::default() };
    Server {
        version: "17.2".to_owned(),
        major: 17,
        user: "replicator".to_owned(),
        client: Client { address: "10.0.0.7".parse().ok(), tls: Some(true) },
        address: "10.0.0.1".parse().ok(),
        sql: Ok(()),
        replication: Ok(Identity { system_identifier: "1".to_owned(), timeline: TimelineId(1) }),
        settings: Ok(settings(&[
            ("port", "5432"),
            ("wal_level", "replica"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            ("listen_addresses", "*"),
            ("wal_keep_size", "1024"),
            ("max_slot_wal_keep_size", "1024"),
            ("archive_mode", "on"),
            ("archive_command", "test ! -f /archive/%f && cp %p /archive/%f"),
            ("archive_library", ""),
            ("synchronous_standby_names", ""),
            ("synchronous_commit", "on"),
            ("hot_standby", "on"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("data_checksums", "on"),
            ("wal_log_hints", "off"),
            ("max_connections", "100"),
            ("max_worker_processes", "8"),
            ("max_prepared_transactions", "0"),
            ("max_locks_per_transaction", "64"),
            ("password_encryption", "scram-sha-256"),
            ("primary_conninfo", ""),
            ("primary_slot_name", ""),
            ("restore_command", ""),
        ])),
        roles: Ok([("replicator".to_owned(), role)].into()),
        hba: Ok(vec![rule]),
        slots: Ok(vec![slot("s")]),
        senders: Ok(vec![sender("walreceiver")]),
        archiver: Ok(Archiver { archived: 3, ..Archiver::default() }),
        receiver: Ok(None),
        in_recovery: Ok(false),
        paused: Ok(None),
        system_identifier: Ok("1".to_owned()),
        timeline: Ok(TimelineId(1)),
        endpoint: Endpoint { host: "10.0.0.1".to_owned(), port: 5432 },
        names: BTreeMap::new(),
        started: Ok(1),
        history: Ok(History::alone(TimelineId(1))),
        position: Ok(Lsn(2 << 24)),
        replayed: Err("not in recovery".to_owned()),
        oldest_wal: Ok(Lsn(1 << 24)),
        standby_signal: Ok(false),
        ready: Ok(Ready::default()),
        conflicts: Ok(BTreeMap::new()),
        replay_waits: Ok(None),
        oldest_transaction: Ok(None),
        waiting_commits: Ok(0),
        summarizer: Ok(Some(Summarizer::default())),
    }
}

fn slot(name: &str) -> Slot {
    Slot { name: name.to_owned(), active: true, restart_lsn: Some(Lsn(1 << 24)), lag: Some(0), pinned: Some(0), ..Slot::default() }
}

fn sender(application_name: &str) -> Sender {
    Sender {
        pid: 7,
        application_name: Some(application_name.to_owned()),
        address: "10.0.0.7".parse().ok(),
        state: Some("streaming".to_owned()),
        sync_state: Some("async".to_owned()),
        behind: [Some(0), Some(0), Some(10), Some(20)],
        ..Sender::default()
    }
}

/// Its standby, without mistakes, too.
fn standby() -> Server {
    let mut standby = Server { in_recovery: Ok(true), paused: Ok(Some(false)), ..server() };
    (standby.started, standby.standby_signal, standby.replayed) = (Ok(2), Ok(true), Ok(Lsn(2 << 24)));
    standby.endpoint.host = "10.0.0.7".to_owned();
    standby.address = "10.0.0.7".parse().ok();
    standby.slots = Ok(vec![]);
    standby.receiver = Ok(Some(Receiver { status: Some("streaming".to_owned()), timeline: Some(TimelineId(1)), ..Receiver::default() }));
    set(&mut standby, "primary_conninfo", "host=10.0.0.1 user=replicator");
    set(&mut standby, "primary_slot_name", "s");
    standby
}

fn facts(primary: Server, standby: Option<Server>) -> Facts {
    Facts { primary, standby: standby.map(Ok), standby_code: None, passwords_told: (false, false) }
}

/// Has a server be on a timeline that left another one there.
fn fork(server: &mut Server, timeline: u32, parent: u32, at: u64) {
    server.timeline = Ok(TimelineId(timeline));
    let ancestor = Ancestor { timeline: TimelineId(parent), switch: Lsn(at), reason: String::new() };
    server.history = Ok(History { timeline: TimelineId(timeline), ancestors: vec![ancestor] });
    if let Ok(Some(receiver)) = &mut server.receiver {
        receiver.timeline = Some(TimelineId(timeline));
    }
}

/// All but what is as it should be: `severity id`.
fn bad(facts: &Facts) -> Vec<String> {
    let findings = diagnose(facts);
    for finding in &findings {
        assert!(!finding.found.is_empty(), "{finding:?}");
        assert!(!finding.severity.is_problem() || !finding.why.is_empty(), "{finding:?}");
    }
    let bad = findings.iter().filter(|finding| finding.severity != Severity::Ok);
    bad.map(|finding| format!("{} {}", finding.severity.name(), finding.id)).collect()
}

#[test]
fn nothing_wrong() {
    assert_eq!(bad(&facts(server(), None)), [""; 0]);
    assert_eq!(bad(&facts(server(), Some(standby()))), [""; 0]);
}

#[test]
fn mistakes_of_the_primary() {
    // What is changed; what comes of it.
    type Change = fn(&mut Server);
    let cases: &[(Change, &[&str])] = &[
        (|s| set(s, "wal_level", "minimal"), &["error wal-level"]),
        (|s| set(s, "wal_level", "logical"), &[]),
        (|s| set(s, "max_wal_senders", "0"), &["error max-wal-senders"]),
        (|s| set(s, "max_wal_senders", "1"), &["warning max-wal-senders"]),
        // All places are taken, also the one that we would have had.
        (
            |s| {
                set(s, "max_wal_senders", "1");
                s.replication = Err(Refusal { code: Some("53300".to_owned()), message: "x".to_owned() });
            },
            &["warning max-wal-senders", "warning replication-connection"],
        ),
        (|s| s.replication = Err(Refusal { code: Some("53300".to_owned()), message: "x".to_owned() }), &["error replication-connection"]),
        (|s| set(s, "max_replication_slots", "0"), &["warning max-replication-slots"]),
        (|s| set(s, "max_replication_slots", "1"), &["warning max-replication-slots"]),
        (|s| s.roles.as_mut().unwrap().get_mut("replicator").unwrap().replication = false, &["error role-replication"]),
        (|s| s.roles.as_mut().unwrap().get_mut("replicator").unwrap().login = false, &["error role-replication"]),
        (|s| s.roles.as_mut().unwrap().get_mut("replicator").unwrap().expired = true, &["error role-replication"]),
        (
            |s| {
                let role = s.roles.as_mut().unwrap().get_mut("replicator").unwrap();
                (role.replication, role.superuser) = (false, true);
            },
            &[],
        ),
        (|s| s.hba.as_mut().unwrap()[0].method = "password".to_owned(), &["warning hba-password"]),
        (|s| s.hba.as_mut().unwrap()[0].method = "md5".to_owned(), &["note hba-md5"]),
        (|s| s.hba.as_mut().unwrap()[0].method = "trust".to_owned(), &["note hba-trust"]),
        // It works all the same: the file has changed.
        (|s| s.hba.as_mut().unwrap()[0].databases[0].text = "all".to_owned(), &["warning hba-replication"]),
        (|s| s.hba.as_mut().unwrap().push(Rule { line: 9, error: Some("x".to_owned()), ..Rule::default() }), &["error hba-errors"]),
        (|s| s.hba.as_mut().unwrap()[0].users.push(Token { text: "replicatr".to_owned(), quoted: false }), &["warning hba-roles"]),
        (|s| s.hba.as_mut().unwrap()[0].method = "reject".to_owned(), &["warning hba-replication"]),
        (|s| s.hba = Err("permission denied".to_owned()), &["skipped hba-replication"]),
        (|s| s.replication = Err(Refusal { code: None, message: "x".to_owned() }), &["error replication-connection"]),
        (|s| set(s, "listen_addresses", "localhost, ::1"), &["warning listen-addresses"]),
        (|s| set(s, "listen_addresses", ""), &["warning listen-addresses"]),
        (|s| set(s, "listen_addresses", "localhost, db.example.org"), &[]),
        (
            |s| {
                set(s, "listen_addresses", "localhost");
                s.senders.as_mut().unwrap()[0].address = None;
            },
            &["note listen-addresses"],
        ),
        (|s| s.slots.as_mut().unwrap()[0].active = false, &["note slot-idle"]),
        (
            |s| {
                let slot = &mut s.slots.as_mut().unwrap()[0];
                (slot.active, slot.lag, slot.pinned) = (false, Some(5 << 20), Some(6 << 20));
            },
            &["warning slot-inactive"],
        ),
        (|s| s.slots.as_mut().unwrap()[0].wal_status = Some("unreserved".to_owned()), &["error slot-unreserved"]),
        (|s| s.slots.as_mut().unwrap()[0].wal_status = Some("lost".to_owned()), &["error slot-lost"]),
        (|s| s.slots.as_mut().unwrap()[0].invalidation_reason = Some("wal_removed".to_owned()), &["error slot-lost"]),
        (
            |s| {
                let slot = &mut s.slots.as_mut().unwrap()[0];
                (slot.invalidation_reason, slot.active) = (Some("idle_timeout".to_owned()), false);
            },
            &["warning slot-lost"],
        ),
        // A copy of the primary's slot, on a standby; and what was one, on what was a standby.
        (
            |s| {
                s.in_recovery = Ok(true);
                let copy = Slot { synced: true, logical: true, active: false, pinned: Some(1 << 30), ..slot("copy") };
                s.slots.as_mut().unwrap().push(copy);
            },
            &["note server"],
        ),
        (
            |s| {
                let copy = Slot { synced: true, logical: true, active: false, pinned: Some(1 << 30), ..slot("copy") };
                s.slots.as_mut().unwrap().push(copy);
            },
            &["warning slot-inactive"],
        ),
        // Subscribers only; then a standby besides.
        (
            |s| {
                set(s, "wal_keep_size", "0");
                set(s, "archive_mode", "off");
                s.slots = Ok(vec![Slot { logical: true, active_pid: Some(7), ..slot("subscription") }]);
            },
            &["note archive"],
        ),
        (
            |s| {
                set(s, "wal_keep_size", "0");
                set(s, "archive_mode", "off");
                s.slots = Ok(vec![Slot { logical: true, active_pid: Some(7), ..slot("subscription") }]);
                s.senders.as_mut().unwrap().push(Sender { pid: 8, ..sender("walreceiver") });
            },
            &["warning wal-keep", "note archive"],
        ),
        (|s| set(s, "max_slot_wal_keep_size", "-1"), &["note max-slot-wal-keep-size"]),
        (|s| set(s, "wal_keep_size", "0"), &[]),
        (
            |s| {
                set(s, "wal_keep_size", "0");
                s.slots = Ok(vec![]);
            },
            &["note wal-keep"],
        ),
        (
            |s| {
                set(s, "wal_keep_size", "0");
                set(s, "archive_mode", "off");
                s.slots = Ok(vec![]);
            },
            &["warning wal-keep", "note archive"],
        ),
        (
            |s| {
                s.major = 12;
                set(s, "wal_keep_segments", "0");
                set(s, "archive_mode", "off");
                s.slots = Ok(vec![]);
            },
            &["warning wal-keep", "note archive"],
        ),
        (|s| set(s, "archive_command", ""), &["error archive"]),
        (
            |s| {
                set(s, "archive_command", "");
                set(s, "archive_library", "basic_archive");
            },
            &[],
        ),
        (|s| s.archiver.as_mut().unwrap().failed = 3, &[]),
        (|s| s.archiver.as_mut().unwrap().fails = true, &["error archive-failing"]),
        (
            |s| {
                set(s, "synchronous_standby_names", "walreceiver");
                s.senders.as_mut().unwrap()[0].sync_state = Some("sync".to_owned());
            },
            &[],
        ),
        (
            |s| {
                set(s, "synchronous_standby_names", "ANY 1 (*)");
                s.senders.as_mut().unwrap()[0].sync_state = Some("quorum".to_owned());
            },
            &[],
        ),
        // The name fits, and it does not say what it has flushed.
        (
            |s| {
                set(s, "synchronous_standby_names", "FIRST 1 (walreceiver, x)");
                s.senders.as_mut().unwrap()[0].behind[2] = None;
            },
            &["error synchronous-standbys"],
        ),
        (
            |s| {
                set(s, "synchronous_standby_names", "*");
                let sender = &mut s.senders.as_mut().unwrap()[0];
                (sender.state, sender.sync_state) = (None, None);
            },
            &["skipped synchronous-standbys", "skipped standby-lag"],
        ),
        (
            |s| {
                set(s, "synchronous_standby_names", "a");
                set(s, "archive_command", "");
                s.in_recovery = Ok(true);
            },
            &["note server", "note archive", "note synchronous-standbys"],
        ),
        (
            |s| {
                set(s, "archive_command", "");
                set(s, "archive_mode", "always");
                s.in_recovery = Ok(true);
            },
            &["note server", "error archive"],
        ),
        (|s| set(s, "synchronous_standby_names", "a, b"), &["error synchronous-standbys"]),
        (|s| set(s, "synchronous_standby_names", "ANY 2 (*)"), &["error synchronous-standbys"]),
        (
            |s| {
                set(s, "synchronous_standby_names", "a");
                set(s, "synchronous_commit", "local");
            },
            &["warning synchronous-standbys"],
        ),
        (|s| s.senders = Ok(vec![]), &["note standby-lag"]),
        (|s| s.senders.as_mut().unwrap()[0].state = Some("catchup".to_owned()), &["warning standby-lag"]),
        (|s| s.senders.as_mut().unwrap()[0].state = Some("backup".to_owned()), &["note standby-lag"]),
        (|s| s.senders.as_mut().unwrap()[0].state = None, &["skipped standby-lag"]),
        (|s| s.senders.as_mut().unwrap()[0].behind[3] = Some(2 << 30), &["warning standby-lag"]),
        (|s| s.senders.as_mut().unwrap()[0].lag_ms[2] = Some(3_600_000), &["warning standby-lag"]),
        (|s| set(s, "hot_standby", "off"), &["note hot-standby"]),
        (|s| set(s, "fsync", "off"), &["warning fsync"]),
        (|s| set(s, "full_page_writes", "off"), &["warning full-page-writes"]),
        (|s| set(s, "data_checksums", "off"), &["note pg-rewind"]),
        (|s| s.settings.as_mut().unwrap().get_mut("fsync").unwrap().pending_restart = true, &["note pending-restart"]),
        (|s| s.in_recovery = Ok(true), &["note server"]),
    ];
    for (at, (change, expected)) in cases.iter().enumerate() {
        let mut server = server();
        change(&mut server);
        assert_eq!(bad(&facts(server, None)), *expected, "case {at}");
    }
}

#[test]
fn mistakes_of_the_standby() {
    type Change = fn(&mut Server, &mut Server);
    let cases: &[(Change, &[&str])] = &[
        (|_, s| s.in_recovery = Ok(false), &["error in-recovery"]),
        (|_, s| s.major = 16, &["error major"]),
        (|_, s| s.system_identifier = Ok("2".to_owned()), &["error system-identifier", "skipped timeline"]),
        (|_, s| s.timeline = Ok(TimelineId(2)), &["error timeline"]),
        (|p, _| p.timeline = Ok(TimelineId(2)), &["error timeline"]),
        // After a failover, in the order of events: it can follow, it cannot, it has not replayed that yet, it is on a timeline of its own.
        (|p, _| fork(p, 2, 1, 3 << 24), &["error timeline"]),
        (|p, _| fork(p, 2, 1, 1 << 24), &["error timeline"]),
        (
            |p, s| {
                fork(p, 2, 1, 1 << 24);
                s.replayed = Ok(Lsn(1 << 24));
                s.paused = Ok(Some(true));
            },
            &["error timeline", "error recovery-paused"],
        ),
        (
            |p, s| {
                fork(p, 2, 1, 1 << 24);
                fork(s, 2, 1, 2 << 24);
            },
            &["error timeline"],
        ),
        (|_, s| s.position = Ok(Lsn(3 << 24)), &["error timeline"]),
        // It still streams from the old primary, and is not past the fork yet.
        (
            |p, s| {
                fork(p, 2, 1, 3 << 24);
                p.senders = Ok(vec![]);
                set(s, "primary_conninfo", "host=10.0.0.2 user=replicator");
            },
            &["error timeline", "error wal-receiver", "note primary-slot"],
        ),
        (|_, s| s.receiver.as_mut().unwrap().as_mut().unwrap().status = Some("waiting".to_owned()), &["warning wal-receiver"]),
        (|_, s| s.receiver.as_mut().unwrap().as_mut().unwrap().status = None, &["skipped wal-receiver"]),
        (|_, s| s.receiver = Ok(None), &["error wal-receiver"]),
        (|p, _| p.senders = Ok(vec![]), &["warning wal-receiver", "note primary-slot"]),
        // By a slot that the primary does not have: from another server, and nothing is to be made on this one.
        (
            |_, s| {
                s.receiver.as_mut().unwrap().as_mut().unwrap().slot = Some("casc".to_owned());
                set(s, "primary_slot_name", "casc");
            },
            &["warning wal-receiver", "note primary-slot"],
        ),
        // Perhaps from another server.
        (
            |_, s| {
                s.receiver.as_mut().unwrap().as_mut().unwrap().status = None;
                set(s, "primary_slot_name", "casc");
            },
            &["skipped wal-receiver", "skipped primary-slot"],
        ),
        (
            |p, s| {
                set(p, "wal_keep_size", "0");
                p.senders = Ok(vec![]);
                set(s, "primary_slot_name", "");
            },
            &["warning wal-receiver", "note primary-slot"],
        ),
        // It is late on purpose, by an hour; and later than that; and the other one is late.
        (
            |p, s| {
                set(s, "recovery_min_apply_delay", "3600000");
                let sender = &mut p.senders.as_mut().unwrap()[0];
                (sender.lag_ms[2], sender.behind[3]) = (Some(3_700_000), Some(5 << 30));
            },
            &[],
        ),
        (
            |p, s| {
                set(s, "recovery_min_apply_delay", "3600000");
                p.senders.as_mut().unwrap()[0].lag_ms[2] = Some(7_200_000);
            },
            &["warning standby-lag"],
        ),
        (
            |p, s| {
                set(s, "recovery_min_apply_delay", "3600000");
                s.receiver.as_mut().unwrap().as_mut().unwrap().slot = Some("s".to_owned());
                p.slots.as_mut().unwrap()[0].active_pid = Some(8);
                p.senders.as_mut().unwrap()[0].lag_ms[2] = Some(3_600_000);
            },
            &["warning standby-lag"],
        ),
        // No place left, and it wants one.
        (
            |p, s| {
                set(p, "max_wal_senders", "1");
                set(s, "max_wal_senders", "1");
                s.receiver = Ok(None);
            },
            &["error max-wal-senders", "error wal-receiver"],
        ),
        // What it lives from: the primary, an archive, or nobody knows.
        (
            |_, s| {
                s.receiver = Ok(None);
                set(s, "restore_command", "cp");
            },
            &["warning wal-receiver"],
        ),
        (
            |p, s| {
                set(p, "wal_keep_size", "0");
                s.receiver = Ok(None);
                set(s, "restore_command", "cp");
                set(s, "primary_conninfo", "");
                set(s, "primary_slot_name", "");
            },
            &["note wal-receiver", "note primary-conninfo", "note primary-slot"],
        ),
        (
            |_, s| {
                s.receiver = Ok(None);
                set(s, "primary_conninfo", "");
            },
            &["error wal-receiver", "error primary-conninfo"],
        ),
        (
            |_, s| {
                s.receiver = Ok(None);
                s.settings.as_mut().unwrap().remove("primary_conninfo");
            },
            &["error wal-receiver", "skipped primary-conninfo"],
        ),
        (
            |_, s| {
                s.receiver = Ok(None);
                set(s, "restore_command", "cp");
                s.settings.as_mut().unwrap().remove("primary_conninfo");
            },
            &["skipped wal-receiver", "skipped primary-conninfo"],
        ),
        // The checkpoint was before the promotion that it has followed.
        (
            |p, s| {
                p.timeline = Ok(TimelineId(2));
                s.receiver = Ok(None);
                s.replication = Ok(Identity { system_identifier: "1".to_owned(), timeline: TimelineId(2) });
            },
            &["error wal-receiver"],
        ),
        (
            |p, s| {
                p.timeline = Ok(TimelineId(2));
                s.receiver = Ok(None);
                s.replication = Err(Refusal { code: None, message: "no".to_owned() });
            },
            &["skipped timeline", "error wal-receiver"],
        ),
        // We come to it by the loopback, and the primary does not see it so.
        (
            |_, s| {
                s.receiver = Ok(None);
                s.address = "127.0.0.1".parse().ok();
            },
            &["error wal-receiver"],
        ),
        (
            |_, s| {
                s.receiver = Ok(None);
                set(s, "primary_conninfo", "host=10.0.0.1 user=nobody");
            },
            &["error wal-receiver", "error standby-role", "error standby-hba"],
        ),
        (|_, s| set(s, "primary_conninfo", ""), &["error primary-conninfo"]),
        (|_, s| set(s, "primary_conninfo", "host=x password=y"), &["warning primary-conninfo-password"]),
        (|_, s| set(s, "primary_conninfo", "nonsense"), &["skipped primary-conninfo"]),
        (|_, s| set(s, "primary_slot_name", ""), &["note primary-slot"]),
        (
            |p, s| {
                set(p, "wal_keep_size", "0");
                set(s, "primary_slot_name", "");
            },
            &["warning primary-slot"],
        ),
        (|_, s| set(s, "primary_slot_name", "t"), &["error primary-slot"]),
        (|p, _| p.slots.as_mut().unwrap()[0].logical = true, &["error primary-slot"]),
        (|_, s| s.paused = Ok(Some(true)), &["error recovery-paused"]),
        (|_, s| set(s, "max_connections", "99"), &["error standby-settings"]),
        (|_, s| set(s, "max_connections", "101"), &[]),
        (|_, s| set(s, "max_locks_per_transaction", "1"), &["error standby-settings"]),
        (|_, s| drop(s.settings.as_mut().unwrap().remove("max_wal_senders")), &["skipped standby-settings"]),
        (|_, s| set(s, "fsync", "off"), &["warning fsync"]),
    ];
    for (at, (change, expected)) in cases.iter().enumerate() {
        let (mut primary, mut standby) = (server(), standby());
        change(&mut primary, &mut standby);
        assert_eq!(bad(&facts(primary, Some(standby))), *expected, "case {at}");
    }
    let mut silent = facts(server(), None);
    (silent.standby, silent.passwords_told) = (Some(Err("no route".to_owned())), (true, false));
    assert_eq!(bad(&silent), ["warning password", "error standby-connection"]);
    silent.standby_code = Some("57P03".to_owned());
    assert_eq!(bad(&silent), ["warning password", "skipped hot-standby"]);
    silent.primary.senders = Ok(vec![]);
    assert_eq!(bad(&silent), ["note standby-lag", "warning password", "warning hot-standby"]);
}

/// Cause and remedy of a lost slot are those of its kind.
#[test]
fn lost_slots() {
    let lost = |logical, reason: Option<&str>| {
        let mut server = server();
        let reason = reason.map(str::to_owned);
        server.slots = Ok(vec![Slot { logical, wal_status: Some("lost".to_owned()), invalidation_reason: reason, ..slot("s") }]);
        let findings = diagnose(&facts(server, None));
        let finding = findings.iter().find(|finding| finding.id == "slot-lost").unwrap();
        assert_eq!(finding.fix[0].line, "SELECT pg_drop_replication_slot('s');");
        format!("{}; {}; {}", finding.found, finding.why, finding.fix.last().unwrap().line)
    };
    assert!(lost(false, None).contains("WAL that it needs has been removed; its standby cannot go on"));
    for reason in [None, Some("wal_removed")] {
        let text = lost(true, reason);
        assert!(text.contains("WAL that it needs has been removed; its consumer") && !text.contains("standby"), "{text}");
    }
    for (reason, said) in [
        ("rows_removed", "hot_standby_feedback = on"),
        ("wal_level_insufficient", "wal_level = logical"),
        ("idle_timeout", "idle_replication_slot_timeout = 0"),
        ("something_new", "pg_drop_replication_slot"),
    ] {
        let text = lost(true, Some(reason));
        assert!(text.contains(reason) && text.contains(said) && !text.contains("WAL that it needs"), "{text}");
        assert!(!text.contains("base backup"), "{text}");
    }
}

/// The slot of the given standby, or what may be it, is not dropped; one that is of no use any more is replaced.
#[test]
fn slots_of_the_standby() {
    let fixes = |primary: &Server, standby: Result<Server, String>| {
        let mut facts = facts(primary.clone(), None);
        facts.standby = Some(standby);
        let findings = diagnose(&facts);
        let fixes = findings.iter().filter(|finding| finding.id.starts_with("slot-")).flat_map(|finding| &finding.fix);
        fixes.map(|fix| fix.line.clone()).collect::<Vec<String>>()
    };
    let drop_it = "SELECT pg_drop_replication_slot('s');";
    let mut primary = server();
    primary.senders = Ok(vec![]);
    let mut standby = standby();
    standby.receiver = Ok(None);
    let idle = Slot { active: false, lag: Some(1 << 30), pinned: Some(1 << 30), ..slot("s") };
    primary.slots = Ok(vec![idle.clone()]);
    assert_eq!(fixes(&primary, Ok(standby.clone())), [""; 0]);
    assert_eq!(fixes(&primary, Err("it is down".to_owned())), [""; 0]);
    let mut hidden = standby.clone();
    hidden.settings.as_mut().unwrap().remove("primary_slot_name");
    assert_eq!(fixes(&primary, Ok(hidden)), [""; 0]);
    let mut other = standby.clone();
    set(&mut other, "primary_slot_name", "t");
    assert_eq!(fixes(&primary, Ok(other)), [drop_it]);
    primary.slots = Ok(vec![Slot { wal_status: Some("unreserved".to_owned()), ..idle.clone() }]);
    assert_eq!(fixes(&primary, Ok(standby.clone())), ["max_slot_wal_keep_size = '2048MB'"]);
    // From 16 on a lost slot does not come back.
    primary.slots = Ok(vec![Slot { wal_status: Some("lost".to_owned()), ..idle }]);
    let anew = "SELECT pg_create_physical_replication_slot('s', true);";
    assert_eq!(fixes(&primary, Ok(standby.clone())), [drop_it, anew]);
    primary.major = 15;
    assert!(!fixes(&primary, Ok(standby)).iter().any(|line| line == drop_it));
}

/// What is to be made is made on the server that the standby asks.
#[test]
fn no_slot_on_the_wrong_server() {
    let mut standby = standby();
    set(&mut standby, "primary_slot_name", "casc");
    standby.receiver.as_mut().unwrap().as_mut().unwrap().slot = Some("casc".to_owned());
    let findings = diagnose(&facts(server(), Some(standby.clone())));
    let for_primary = |finding: &Finding| finding.fix.iter().any(|fix| fix.on == Some(Target::Primary));
    assert!(!findings.iter().any(for_primary), "{findings:?}");
    standby.receiver = Ok(None);
    let findings = diagnose(&facts(server(), Some(standby)));
    let slot = findings.iter().find(|finding| finding.id == "primary-slot").unwrap();
    let line = "SQL: SELECT pg_create_physical_replication_slot('casc', true);";
    assert_eq!((slot.severity, slot.fix[0].to_string().as_str()), (Severity::Error, line));
    assert_eq!(slot.fix[0].on, Some(Target::Primary));
}

/// A server that tells nothing: points are skipped, and nothing is called right or wrong.
#[test]
fn nothing_is_known() {
    let no = || "no".to_owned();
    let blind = || Server {
        sql: Ok(()),
        settings: Err(no()),
        roles: Err(no()),
        hba: Err(no()),
        slots: Err(no()),
        senders: Err(no()),
        archiver: Err(no()),
        receiver: Err(no()),
        in_recovery: Err(no()),
        paused: Err(no()),
        system_identifier: Err(no()),
        timeline: Err(no()),
        endpoint: Endpoint::default(),
        names: BTreeMap::new(),
        started: Err(no()),
        history: Err(no()),
        position: Err(no()),
        replayed: Err(no()),
        oldest_wal: Err(no()),
        standby_signal: Err(no()),
        ready: Err(no()),
        conflicts: Err(no()),
        replay_waits: Err(no()),
        oldest_transaction: Err(no()),
        waiting_commits: Err(no()),
        summarizer: Err(no()),
        replication: Err(Refusal { code: None, message: no() }),
        ..server()
    };
    let bad = bad(&facts(blind(), Some(blind())));
    let others: Vec<&String> = bad.iter().filter(|line| !line.starts_with("skipped ")).collect();
    assert_eq!(others, ["error replication-connection"]);
    assert!(bad.len() > 15, "{bad:?}");
}

#[test]
fn before_12_the_walreceiver_knows() {
    let mut standby = standby();
    standby.major = 11;
    let settings = standby.settings.as_mut().unwrap();
    settings.remove("primary_conninfo");
    settings.remove("primary_slot_name");
    let conninfo = PrimaryConninfo::parse("user=replicator password=******** host=10.0.0.1");
    standby.receiver =
        Ok(Some(Receiver { status: Some("streaming".to_owned()), slot: Some("s".to_owned()), conninfo, ..Receiver::default() }));
    standby.settings.as_mut().unwrap().remove("restore_command");
    let mut primary = server();
    primary.major = 11;
    set(&mut primary, "wal_keep_segments", "10");
    assert_eq!(bad(&facts(primary.clone(), Some(standby.clone()))), ["warning primary-conninfo-password"]);
    // Without one nobody knows what it should do.
    standby.receiver = Ok(None);
    let both = facts(primary.clone(), Some(standby.clone()));
    assert_eq!(bad(&both), ["skipped wal-receiver", "skipped primary-conninfo", "skipped primary-slot"]);
    assert!(diagnose(&both).iter().all(|finding| finding.fix.is_empty()));
    primary.timeline = Ok(TimelineId(2));
    let findings = diagnose(&facts(primary, Some(standby)));
    let timeline = findings.iter().find(|finding| finding.id == "timeline").unwrap();
    let fix = &timeline.fix[0];
    let line = "recovery.conf: recovery_target_timeline = 'latest'  (unless it is there already; needs a restart)";
    assert_eq!((fix.on, fix.to_string().as_str()), (Some(Target::Standby), line));
}

#[test]
fn lines_to_change() {
    let mut server = server();
    server.user = "It's \"me\"".to_owned();
    server.roles.as_mut().unwrap().insert(server.user.clone(), Role { login: true, ..Role::default() });
    let file = Setting { value: "minimal".to_owned(), file: Some("/etc/pg.conf".to_owned()), line: Some(5), pending_restart: false };
    server.settings.as_mut().unwrap().insert("wal_level".to_owned(), file);
    server.replication = Err(Refusal { code: Some("28000".to_owned()), message: "no pg_hba.conf entry".to_owned() });
    set(&mut server, "password_encryption", "md5");
    let system =
        Setting { value: "off".to_owned(), file: Some("/data/postgresql.auto.conf".to_owned()), line: Some(3), pending_restart: false };
    server.settings.as_mut().unwrap().insert("fsync".to_owned(), system);
    let findings = diagnose(&facts(server, None));
    let fix = |id| findings.iter().find(|finding| finding.id == id && finding.severity.is_problem()).unwrap().fix[0].to_string();
    assert_eq!(fix("wal-level"), "/etc/pg.conf, line 5: wal_level = replica  (needs a restart)");
    assert_eq!(fix("fsync"), "SQL: ALTER SYSTEM SET fsync = on;  (then SELECT pg_reload_conf())");
    assert_eq!(fix("role-replication"), "SQL: ALTER ROLE \"It's \"\"me\"\"\" REPLICATION;");
    let line = "/etc/pg_hba.conf: host replication \"It's \"\"me\"\"\" 10.0.0.7/32 md5  (then SELECT pg_reload_conf())";
    assert_eq!(fix("hba-replication"), line);
    assert_eq!([size(0), size(1023), size(1024), size(5 << 30)], ["0 bytes", "1023 bytes", "1.0 kB", "5.0 GB"]);
    assert_eq!([literal("a'b"), ident("a_1"), ident("A")], ["'a''b'", "a_1", "\"A\""]);
}
