//! Replication slots, of either server.

use std::collections::BTreeSet;

use super::facts::{Facts, Known, Server};
use super::relation::{self, Source};
use super::standby::of_standbys;
use super::{Fix, RELOAD, RESTART, Report, Side, Target, ident, literal, size};
use crate::slots::Slot;

/// An unused slot that is no further behind has perhaps just been left.
const IDLE: u64 = 1 << 20;
/// A logical slot that keeps more than this is far behind, also where checkpoints would keep as much.
const FAR_BEHIND: u64 = 1 << 30;
/// With a transaction that has been open for so many seconds, a logical slot is far behind earlier.
const LONG_OPEN: f64 = 300.0;
/// This much earlier.
const BEHIND: u64 = 64 << 20;
/// From here on it is worth a word how many transactions VACUUM is held back by.
const OLD_XMIN: u64 = 100_000;

/// Whose slots they may be.
pub(super) struct Owner<'f> {
    /// Names that the standby uses, or is configured to use.
    names: BTreeSet<&'f str>,
    /// The standby's slot is not known, so that any physical one may be it.
    perhaps: Option<&'static str>,
    /// The standby streams from another server.
    elsewhere: bool,
}

impl Owner<'_> {
    /// What the standby uses of the primary's slots.
    pub(super) fn of_primary(facts: &Facts) -> Owner<'_> {
        let mut owner = Owner { names: BTreeSet::new(), perhaps: None, elsewhere: false };
        match &facts.standby {
            None => {}
            Some(Err(_)) => owner.perhaps = Some("it may be the one of the standby, which cannot be reached"),
            Some(Ok(standby)) => {
                let used = standby.receiver.as_ref().ok().and_then(|receiver| receiver.as_ref()?.slot.as_deref());
                let configured = of_standbys(standby, "primary_slot_name");
                owner.names.extend(used.into_iter().chain(configured.as_ref().ok().copied()).filter(|name| !name.is_empty()));
                let hidden = used.is_none() && configured.is_err();
                owner.perhaps = hidden.then_some("it may be the one of the standby, whose primary_slot_name is not shown");
                owner.elsewhere = matches!(relation::streams_from(&facts.primary, standby), Source::Other(_));
            }
        }
        owner
    }

    /// Of a standby: nobody is known to use them.
    pub(super) fn nobody() -> Owner<'static> {
        Owner { names: BTreeSet::new(), perhaps: None, elsewhere: false }
    }
}

pub(super) fn check(server: &Server, owner: &Owner<'_>, report: &mut Report) {
    let slots = match &server.slots {
        Ok(slots) => slots,
        Err(reason) => return report.skipped("slots", format!("replication slots: {reason}"), vec![]),
    };
    // On a standby those are the server's own: nobody uses them before a promotion, and nobody can drop them.
    let (synced, slots): (Vec<&Slot>, Vec<&Slot>) = slots.iter().partition(|slot| slot.synced && server.in_recovery != Ok(false));
    let limit = server.number("max_slot_wal_keep_size");
    let mut good = 0;
    for &slot in &slots {
        if slot.is_lost() {
            lost(server, slot, owner, report);
        } else if slot.wal_status.as_deref() == Some("unreserved") {
            unreserved(server, slot, owner, report);
        } else if !slot.active {
            inactive(slot, owner, limit, report);
        } else if slot.logical && is_far(server, slot) {
            held_back(server, slot, report);
        } else {
            good += 1;
        }
    }
    if good > 0 {
        report.ok("slots", format!("{good} of {} slots in use", slots.len()));
    }
    if !synced.is_empty() {
        report.ok("slots", format!("{} slots are synchronized from the primary", synced.len()));
    }
    if limit == Some(-1) && !slots.is_empty() && report.side == Side::Primary {
        let why = "a slot whose standby stays away keeps WAL until the disk is full; a limit gives up that standby instead of the server";
        report.note("max-slot-wal-keep-size", "max_slot_wal_keep_size is -1: no limit", why);
    }
}

impl Owner<'_> {
    /// The given standby uses the slot.
    fn has(&self, slot: &Slot) -> bool {
        self.names.contains(slot.name.as_str())
    }

    /// The line that drops the slot, unless somebody may need it.
    fn drop_it(&self, slot: &Slot) -> Vec<Fix> {
        if self.has(slot) || slot.synced || self.perhaps.is_some() && !slot.logical {
            return vec![];
        }
        let who = if slot.logical { "only if its consumer is gone for good" } else { "only if its standby is gone for good" };
        vec![Fix { then: Some(who), ..drop_line(slot) }]
    }
}

fn drop_line(slot: &Slot) -> Fix {
    Fix::sql(format!("SELECT pg_drop_replication_slot({});", literal(&slot.name)))
}

fn inactive(slot: &Slot, owner: &Owner<'_>, limit: Option<i64>, report: &mut Report) {
    let name = &slot.name;
    let whose = if owner.has(slot) { ", of this standby," } else { "" };
    let vacuum = slot
        .xmin_age
        .filter(|&age| age >= OLD_XMIN)
        .map_or_else(String::new, |age| format!(", and holds back VACUUM by {age} transactions"));
    if (if slot.logical { slot.pinned } else { slot.lag }).is_none_or(|bytes| bytes < IDLE) && vacuum.is_empty() {
        let pinned = slot.pinned.map_or_else(String::new, |bytes| format!(", {} of WAL", size(bytes)));
        let why = match owner.has(slot) {
            true => "it keeps the WAL that the standby will need",
            false => "from now on it keeps WAL until somebody uses it",
        };
        return report.note("slot-idle", format!("slot \"{name}\"{whose} is not in use{pinned}"), why);
    }
    let found = format!("slot \"{name}\"{whose} is not in use and keeps {} of WAL{vacuum}", size(slot.pinned.unwrap_or_default()));
    let grows = match limit {
        Some(1..) => "that grows until max_slot_wal_keep_size, and then the slot is lost",
        _ => "that grows until the disk is full, and the server stops then",
    };
    let why = if owner.has(slot) && owner.elsewhere {
        format!("the standby streams from another server and will need the slot when it comes back to this one; until then {grows}")
    } else if owner.has(slot) {
        format!(
            "the standby needs this WAL to catch up, so the slot stays: what keeps the standby away is to be put right; until then {grows}"
        )
    } else if slot.synced {
        format!("it was synchronized from the former primary: its consumer is to be pointed at this server; until then {grows}")
    } else if let Some(perhaps) = owner.perhaps.filter(|_| !slot.logical) {
        format!("{perhaps}: then it stays; {grows}")
    } else {
        grows.to_owned()
    };
    report.warning("slot-inactive", found, why, owner.drop_it(slot));
}

fn unreserved(server: &Server, slot: &Slot, owner: &Owner<'_>, report: &mut Report) {
    let limit = server.number("max_slot_wal_keep_size");
    let pinned = slot.pinned.map_or_else(String::new, |bytes| format!(", {} of WAL", size(bytes)));
    let mut fix = vec![Fix::setting(server, "max_slot_wal_keep_size", &format!("'{}'", generous(slot, limit)), RELOAD)];
    fix.extend(owner.drop_it(slot));
    let whose = if owner.has(slot) { ", of this standby," } else { "" };
    let found = format!("slot \"{}\"{whose} is beyond max_slot_wal_keep_size{pinned}", slot.name);
    let who = if slot.logical { "consumer" } else { "standby" };
    report.error("slot-unreserved", found, format!("the next checkpoint may remove what it needs, and its {who} is lost then"), fix);
}

/// A slot that is of no use any more: why, and what now, depend on its kind and on what became of it.
fn lost(server: &Server, slot: &Slot, owner: &Owner<'_>, report: &mut Report) {
    let id = "slot-lost";
    let reason = slot.invalidation_reason.as_deref();
    let named = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let whose = if owner.has(slot) { ", of this standby," } else { "" };
    let found = |what: &str| format!("slot \"{}\"{whose} is lost{named}: {what}", slot.name);
    let drop_it = drop_line(slot);
    let anew =
        "its consumer cannot go on: it needs a new slot, and a new copy of the data, because the changes in between are not to be had";
    match reason {
        Some("rows_removed") => {
            let feedback = Fix::setting(server, "hot_standby_feedback", "on", RELOAD);
            let why = format!("{anew}; hot_standby_feedback, with a physical slot on the primary, keeps such rows");
            let fix = if server.is_on("hot_standby_feedback") == Some(true) { vec![drop_it] } else { vec![drop_it, feedback] };
            report.error(id, found("rows of the catalog that it needs have been removed"), why, fix);
        }
        Some("wal_level_insufficient") => {
            let on = if server.in_recovery == Ok(true) { Target::Primary } else { report.side.into() };
            let level = Fix { on: Some(on), ..Fix::line("postgresql.conf", "wal_level = logical", Some(RESTART)) };
            let why = format!("{anew}; logical decoding takes wal_level = logical on the primary");
            report.error(id, found("the primary's wal_level was lowered"), why, vec![drop_it, level]);
        }
        Some("idle_timeout") => {
            let why = if slot.logical {
                anew
            } else {
                "its standby is refused with it: it needs a new slot, and the WAL since, from here or an archive"
            };
            let longer = Fix::setting(server, "idle_replication_slot_timeout", "0", RELOAD);
            let mut fix = recreate(slot, owner);
            fix.push(Fix { then: Some("if slots are to wait for ever"), ..longer });
            report.warning(id, found("nobody used it for longer than idle_replication_slot_timeout"), why, fix);
        }
        // Servers before 17 give no reason. Removed WAL is the only one there, except for logical slots on standbys of 16.
        None | Some("wal_removed") => {
            let what = "WAL that it needs has been removed";
            if slot.logical {
                return report.error(id, found(what), anew, vec![drop_it]);
            }
            let standby = "its standby cannot go on: without the WAL in an archive it must be made anew from a base backup";
            // Before 16 such a slot takes its standby back once it has caught up by itself.
            if server.major < 16 && (owner.has(slot) || owner.perhaps.is_some()) {
                let why = format!("{standby}; the slot itself is usable again as soon as its standby streams");
                let restore = Fix::line(
                    "postgresql.conf",
                    "restore_command = 'cp /archive/%f %p'",
                    Some("if there is an archive, with the command that reads it"),
                );
                let anew = Fix::shell("pg_basebackup -R -S SLOT -D DATADIR  # otherwise: a new standby, from this primary");
                return report.error(id, found(what), why, [restore, anew].map(|fix| fix.on(Target::Standby)).into());
            }
            report.error(id, found(what), standby, recreate(slot, owner));
        }
        Some(_) => report.error(id, found("the server has invalidated it"), "whoever used it is refused", vec![drop_it]),
    }
}

/// Lines that put a lost slot in order. The given standby needs one of that name again.
fn recreate(slot: &Slot, owner: &Owner<'_>) -> Vec<Fix> {
    let mut fix = vec![drop_line(slot)];
    if owner.has(slot) && !slot.logical {
        fix = vec![Fix { then: Some("it cannot be used again"), ..drop_line(slot) }];
        let create = format!("SELECT pg_create_physical_replication_slot({}, true);", literal(&slot.name));
        fix.push(Fix { then: Some("right after it: the standby needs a slot of that name"), ..Fix::sql(create) });
    }
    fix
}

/// More than the slot needs now.
fn generous(slot: &Slot, limit: Option<i64>) -> String {
    let needed = slot.pinned.unwrap_or_default() >> 20;
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or_default();
    format!("{}MB", needed.max(limit).saturating_mul(2).max(1024))
}

/// It makes the server keep more than checkpoints do, or has done so for as long as a transaction has been open.
fn is_far(server: &Server, slot: &Slot) -> bool {
    let Some(pinned) = slot.pinned else { return false };
    let most = server.number("max_wal_size").and_then(|megabytes| u64::try_from(megabytes).ok()).map(|megabytes| megabytes << 20);
    let beyond = match slot.wal_status.as_deref() {
        Some(status) => status == "extended",
        None => most.is_some_and(|most| pinned > most),
    };
    let open = server.oldest_transaction.as_ref().is_ok_and(|open| open.as_ref().is_some_and(|open| open.age >= LONG_OPEN));
    beyond || pinned >= FAR_BEHIND || open && pinned >= BEHIND
}

/// A logical slot in use that keeps much: its consumer is slow, or a transaction goes on and on.
fn held_back(server: &Server, slot: &Slot, report: &mut Report) {
    let id = "slot-behind";
    let (pinned, lag) = (slot.pinned.unwrap_or_default(), slot.lag.unwrap_or_default());
    let found = format!(
        "logical slot \"{}\" is in use; its restart position is {} behind, what its consumer has confirmed {}",
        slot.name,
        size(pinned),
        size(lag)
    );
    if lag >= pinned / 2 {
        let why =
            "its consumer does not keep up, or does not confirm what it has: the server keeps the WAL from there on, and the disk fills";
        let look = Fix::sql("SELECT * FROM pg_stat_subscription;  -- on the subscriber: does it move? its log says what stops it");
        return report.warning(id, found, why, vec![look]);
    }
    let why = "decoding begins again where the oldest transaction began that was open then: while one stays open, or prepared, the server keeps all WAL from there on";
    let open: Known<Option<(String, Fix)>> = server.oldest_transaction.as_ref().map_err(String::clone).map(|open| {
        open.as_ref().map(|open| match open.is_prepared {
            true => (
                format!("{why}; the oldest is the prepared transaction {}, {:.0} seconds old", literal(&open.name), open.age),
                Fix {
                    then: Some("or COMMIT PREPARED; whoever prepared it knows which"),
                    ..Fix::sql(format!("ROLLBACK PREPARED {};", literal(&open.name)))
                },
            ),
            false => (
                format!("{why}; the oldest is that of process {}, {:.0} seconds old", open.name, open.age),
                Fix { then: Some("if it is to be given up"), ..Fix::sql(format!("SELECT pg_terminate_backend({});", open.name)) },
            ),
        })
    });
    match open {
        Ok(Some((why, fix))) => report.warning(id, found, why, vec![fix]),
        Ok(None) => {
            let why = "no transaction is open now: it moves on once the server has logged a snapshot, at the latest with the next checkpoint, and its consumer has confirmed that";
            report.warning(id, found, why, vec![Fix::sql("CHECKPOINT;")]);
        }
        Err(_) => {
            let look = Fix::sql("SELECT * FROM pg_prepared_xacts; SELECT * FROM pg_stat_activity ORDER BY xact_start LIMIT 1;");
            let grant = Fix::sql(format!("GRANT pg_monitor TO {};", ident(&server.user)));
            report.warning(id, found, why, vec![look, grant]);
        }
    }
}
