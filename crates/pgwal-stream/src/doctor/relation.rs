//! What the two servers have to do with each other: who receives from whom, and whether the WAL of one goes on where the other's ends.

use std::net::IpAddr;

use pgwal::{Lsn, TimelineId};

use super::facts::{Known, PrimaryConninfo, Receiver, Sender, Server, is_loopback, is_socket};
use super::size;

/// Where a standby gets its WAL from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From the server in question.
    This,
    /// From another one: what shows it.
    Other(String),
    /// Nothing tells, or it does not stream.
    Unknown,
}

/// Whether an address, as a standby names it, is a server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It is.
    Yes,
    /// It leads to another server, or to none.
    No,
    /// It is not the one by which we reach the server; the server may have several, or somebody in front of it.
    Differs,
}

/// Whether it streams; `None`: not known.
pub(super) fn streams(standby: &Server) -> Option<bool> {
    match standby.receiver.as_ref().ok()? {
        None => Some(false),
        Some(receiver) => Some(receiver.status.as_deref()? == "streaming"),
    }
}

/// Whether a standby that streams gets its WAL from `server`.
///
/// The server was asked before, and neither its walsender nor the slot goes while the walreceiver streams.
pub(super) fn streams_from(server: &Server, standby: &Server) -> Source {
    let (Ok(Some(receiver)), Some(true)) = (&standby.receiver, streams(standby)) else { return Source::Unknown };
    let other = |what: String| Source::Other(what);
    let senders = match &server.senders {
        Ok(senders) if senders.is_empty() => return other("nobody streams from the server that you gave".to_owned()),
        Ok(senders) => Some(senders),
        Err(_) => None,
    };
    let mut by_slot = None;
    if let (Some(name), Ok(slots)) = (&receiver.slot, &server.slots) {
        match slots.iter().find(|slot| slot.name == *name) {
            None => return other(format!("it uses a slot \"{name}\", which the server that you gave does not have")),
            Some(slot) if !slot.active => {
                return other(format!("it uses a slot \"{name}\", and that of the server that you gave is not in use"));
            }
            // The slot's process may be newer than the list of walsenders.
            Some(slot) => {
                by_slot = slot.active_pid.filter(|pid| senders.is_none_or(|senders| senders.iter().any(|sender| sender.pid == *pid)))
            }
        }
    }
    let by_address = sender_endpoint(receiver).map(|(host, port)| (is_at(server, standby, &host, &port), host, port));
    if let Some((Match::No, host, port)) = &by_address {
        return other(format!("it streams from host {host}, port {port}"));
    }
    if let Some(senders) = senders {
        let could_be: Vec<&Sender> = senders.iter().filter(|sender| is_walsender_of(sender, standby, receiver, by_slot)).collect();
        if could_be.is_empty() {
            let name = called(standby, receiver).unwrap_or_default();
            return other(format!("no standby is connected to the server that you gave by the name of \"{name}\""));
        }
        let address = standby.address.filter(|address| !address.is_loopback());
        if could_be.iter().any(|sender| by_slot == Some(sender.pid) || sender.address.is_some() && sender.address == address) {
            return Source::This;
        }
    }
    match by_address {
        Some((Match::Yes, ..)) => Source::This,
        _ => Source::Unknown,
    }
}

/// Whether a walsender may be the one that serves a walreceiver.
fn is_walsender_of(sender: &Sender, standby: &Server, receiver: &Receiver, by_slot: Option<u32>) -> bool {
    let name = called(standby, receiver);
    let fits = |found: &str, wanted: &str| found == wanted || found.len() == NAME_LEN && wanted.starts_with(found);
    by_slot.is_none_or(|pid| pid == sender.pid)
        && sender.state.as_deref() != Some("backup")
        && sender.application_name.as_deref().zip(name).is_none_or(|(found, wanted)| fits(found, wanted))
}

/// Longer names are cut by the server. C: `NAMEDATALEN` - 1.
const NAME_LEN: usize = 63;

/// What a walreceiver calls itself; `None`: not known. C: `libpqrcv_connect`'s fallback_application_name.
pub(super) fn called<'f>(standby: &'f Server, receiver: &'f Receiver) -> Option<&'f str> {
    let conninfo = receiver.conninfo.as_ref()?;
    if let Some(name) = conninfo.application_name.as_deref().or(conninfo.fallback_name.as_deref()) {
        return Some(name);
    }
    let cluster = standby.value("cluster_name").filter(|name| !name.is_empty() && standby.major >= 12);
    Some(cluster.unwrap_or("walreceiver"))
}

/// The walsender of a standby; `None`: not known which it is.
pub(super) fn sender_of<'f>(server: &'f Server, standby: &Server) -> Option<&'f Sender> {
    let receiver = standby.receiver.as_ref().ok()?.as_ref()?;
    if matches!(streams_from(server, standby), Source::Other(_)) {
        return None;
    }
    let slot = receiver.slot.as_ref().and_then(|name| server.slots.as_ref().ok()?.iter().find(|slot| slot.name == *name));
    let pid = slot.and_then(|slot| slot.active_pid);
    let senders = server.senders.as_ref().ok()?;
    let name = || receiver.conninfo.as_ref().map_or_else(|| Some("walreceiver"), |_| called(standby, receiver));
    senders.iter().find(|sender| match pid {
        Some(pid) => sender.pid == pid,
        None => sender.application_name.as_deref() == name(),
    })
}

/// Host and port that a walreceiver is connected to.
pub(super) fn sender_endpoint(receiver: &Receiver) -> Option<(String, String)> {
    if let (Some(host), Some(port)) = (&receiver.sender_host, receiver.sender_port) {
        return Some((host.clone(), port.to_string()));
    }
    match receiver.conninfo.as_ref()?.endpoints().as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// Whether a primary_conninfo leads to a server: one of its hosts does, or none of them.
pub(super) fn leads_to(server: &Server, standby: &Server, conninfo: &PrimaryConninfo) -> Match {
    let matches: Vec<Match> = conninfo.endpoints().iter().map(|(host, port)| is_at(server, standby, host, port)).collect();
    if matches.contains(&Match::Yes) {
        Match::Yes
    } else if matches.iter().all(|found| *found == Match::No) {
        Match::No
    } else {
        Match::Differs
    }
}

/// Whether two servers are on one machine; `None`: not known.
pub(super) fn on_one_machine(one: &Server, other: &Server) -> Option<bool> {
    if !one.endpoint.host.is_empty() && one.endpoint.is_local() && other.endpoint.is_local() {
        return Some(true);
    }
    let addresses = one.address.zip(other.address).filter(|(one, other)| !one.is_loopback() && !other.is_loopback());
    // Different addresses may be those of one machine.
    addresses.and_then(|(one, other)| (one == other).then_some(true))
}

fn is_at(server: &Server, standby: &Server, host: &str, port: &str) -> Match {
    let Ok(port) = port.parse::<u16>() else { return Match::Differs };
    let own = server.number("port").and_then(|port| u16::try_from(port).ok());
    let ports: Vec<u16> = own.into_iter().chain(Some(server.endpoint.port).filter(|&port| port != 0)).collect();
    if ports.is_empty() {
        return Match::Differs;
    }
    let is_port = ports.contains(&port);
    let here = on_one_machine(server, standby);
    let listens: Vec<&str> = server.value("listen_addresses").unwrap_or("*").split(',').map(str::trim).collect();
    let is_host = if host.is_empty() || is_socket(host) {
        let folders: Option<Vec<&str>> = server.value("unix_socket_directories").map(|list| list.split(',').map(str::trim).collect());
        let same = |folder: &&str| folder.trim_end_matches('/') == host.trim_end_matches('/');
        match (folders, here) {
            (Some(folders), _) if !host.is_empty() && !folders.iter().any(same) => Match::No,
            (_, Some(true)) => Match::Yes,
            _ => Match::Differs,
        }
    } else if is_loopback(host) {
        match here {
            Some(true) if listens == [""] => Match::No,
            Some(true) => Match::Yes,
            _ => Match::Differs,
        }
    } else {
        let addresses = host.parse().map_or_else(|_| standby.names.get(host).cloned().unwrap_or_default(), |address: IpAddr| vec![address]);
        let is_own =
            |address: &IpAddr| server.address == Some(*address) || listens.iter().any(|listens| listens.parse().ok() == Some(*address));
        if addresses.iter().any(is_own) || host.eq_ignore_ascii_case(&server.endpoint.host) { Match::Yes } else { Match::Differs }
    };
    match (is_host, is_port) {
        (Match::Yes, false) => Match::No,
        (found, true) => found,
        (_, false) if here == Some(true) => Match::No,
        (found, false) => found,
    }
}

/// The same server was given twice.
pub(super) fn is_same(one: &Server, other: &Server) -> bool {
    let agree = |one: &Known<i64>, other: &Known<i64>| matches!((one, other), (Ok(one), Ok(other)) if one == other);
    agree(&one.started, &other.started) && identifier(one).is_ok_and(|one| identifier(other).is_ok_and(|other| one == other))
}

/// The arguments are the wrong way round.
pub(super) fn is_swapped(primary: &Server, standby: &Server) -> bool {
    match (&primary.in_recovery, &standby.in_recovery) {
        (Ok(true), Ok(false)) => true,
        (Ok(true), Ok(true)) => streams_from(standby, primary) == Source::This && streams_from(primary, standby) != Source::This,
        _ => false,
    }
}

/// What is known of the cluster, by one way or the other.
pub(super) fn identifier(server: &Server) -> Known<String> {
    server
        .system_identifier
        .clone()
        .or_else(|reason| server.replication.as_ref().map_or(Err(reason), |identity| Ok(identity.system_identifier.clone())))
}

/// Both are known to be of different clusters.
pub(super) fn are_strangers(one: &Server, other: &Server) -> bool {
    identifier(one).is_ok_and(|one| identifier(other).is_ok_and(|other| one != other))
}

pub(super) fn timeline(server: &Server) -> Known<TimelineId> {
    if is_stale(server)
        && let Ok(identity) = &server.replication
    {
        return Ok(identity.timeline);
    }
    server.timeline.clone().or_else(|reason| server.replication.as_ref().map_or(Err(reason), |identity| Ok(identity.timeline)))
}

/// Its timeline is the one of pg_control: in recovery without a walreceiver that tells, it is old until the next restartpoint.
pub(super) fn is_stale(server: &Server) -> bool {
    server.in_recovery == Ok(true) && !matches!(&server.receiver, Ok(Some(Receiver { timeline: Some(_), .. })))
}

/// How the WAL of a standby stands to that of its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lineage {
    /// It goes on where the primary is, or nothing says otherwise.
    Same(TimelineId),
    /// It is on a timeline that the primary has left, before the place where it did, which is not known with those that hide it.
    Behind {
        /// Where the primary left it; `None`: not known.
        fork: Option<Lsn>,
    },
    /// It has WAL that the primary's history does not have, and can never follow it: how that is known.
    Diverged {
        /// What shows it.
        found: String,
        /// It has received such WAL, and not replayed it yet.
        only_received: bool,
    },
    /// It is on a timeline that the primary does not know: there is another primary.
    Newer {
        /// Bytes that the primary has written past the fork; `None`: not known.
        written: Option<u64>,
        /// Where the standby's timeline left the primary's.
        fork: Option<Lsn>,
    },
    /// Not known.
    Unknown(String),
}

impl Lineage {
    pub(super) fn is_diverged(&self) -> bool {
        matches!(self, Lineage::Diverged { .. })
    }
}

pub(super) fn lineage(primary: &Server, standby: &Server) -> Lineage {
    let (first, second) = match (timeline(primary), timeline(standby)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(reason), _) | (_, Err(reason)) => return Lineage::Unknown(reason),
    };
    if second > first {
        let fork =
            standby.history.as_ref().ok().filter(|history| history.timeline == second).and_then(|history| history.switch_point(first));
        let written = fork.zip(primary.position.as_ref().ok()).map(|(fork, position)| position.0.saturating_sub(fork.0));
        return Lineage::Newer { written, fork };
    }
    let history = primary.history.as_ref().ok().filter(|history| history.timeline == first);
    let diverged = |found: String| Lineage::Diverged { found, only_received: false };
    let reached = [&standby.position, &standby.replayed].into_iter().filter_map(|lsn| lsn.as_ref().ok()).max().copied();
    if first == second {
        let other = standby.history.as_ref().ok().filter(|history| history.timeline == second);
        if let Some((one, other)) = history.zip(other)
            && let Some((one, other)) = one.parent().zip(other.parent())
            && (one.timeline, one.switch) != (other.timeline, other.switch)
        {
            return diverged(format!(
                "both are on a timeline {first}, but not on the same one: the primary's left timeline {} at {}, the standby's left timeline {} at {}",
                one.timeline, one.switch, other.timeline, other.switch
            ));
        }
        // The position of a primary was asked after the standby's.
        if let (Some(reached), Ok(position), Ok(false)) = (reached, &primary.position, &primary.in_recovery)
            && reached > *position
        {
            let by = size(reached.0 - position.0);
            return diverged(format!(
                "both are on timeline {first}, and the standby has WAL up to {reached}, {by} more than the primary, which is at {position}"
            ));
        }
        return Lineage::Same(first);
    }
    let Some(history) = history else { return Lineage::Behind { fork: None } };
    let Some(fork) = history.switch_point(second) else {
        return diverged(format!(
            "the primary is on timeline {first}, the standby still on {second}, which is no ancestor of the primary's"
        ));
    };
    let text = |what: &str, lsn: Lsn| {
        format!(
            "the primary is on timeline {first}, the standby still on {second}, which the primary's history leaves at {fork}: the standby has diverged, because it has {what} WAL up to {lsn}"
        )
    };
    match (standby.in_recovery.as_ref(), &standby.replayed, reached) {
        (Ok(false), _, Some(reached)) if reached > fork => diverged(text("written", reached)),
        (_, Ok(replayed), _) if *replayed > fork => diverged(text("replayed", *replayed)),
        (_, _, Some(reached)) if reached > fork => Lineage::Diverged { found: text("received", reached), only_received: true },
        _ => Lineage::Behind { fork: Some(fork) },
    }
}

/// A standby asks for its next segment, which the primary has removed: where it begins, and where what the primary has begins.
pub(super) fn missing_wal(primary: &Server, standby: &Server) -> Option<(Lsn, Lsn)> {
    let needed = [&standby.position, &standby.replayed].into_iter().filter_map(|lsn| lsn.as_ref().ok()).max()?;
    let oldest = primary.oldest_wal.as_ref().ok()?;
    (needed < oldest).then_some((*needed, *oldest))
}
