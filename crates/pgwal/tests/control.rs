//! `global/pg_control` of real servers, compared with what these say of it.

use pgwal::datadir::{DataDir, DbState};
use pgwal_testkit::server::Postgres;

#[test]
fn the_control_file_is_read_as_the_server_reads_it() {
    let servers = Postgres::all();
    if servers.is_empty() {
        assert!(Postgres::find_or_skip(None, "control::the_control_file_is_read_as_the_server_reads_it").is_none());
    }
    for postgres in servers {
        let server = postgres.start(&[], "max_connections = 33\nmax_prepared_transactions = 5\nmax_locks_per_transaction = 77").unwrap();
        server.sql("CHECKPOINT").unwrap();
        let dir = DataDir::open(server.data(), |e| panic!("{e}")).unwrap();
        let control = dir.control().unwrap();
        let told = server
            .sql(
                "SELECT checkpoint_lsn, redo_lsn, timeline_id, prev_timeline_id, full_page_writes, next_oid, \
                 extract(epoch FROM checkpoint_time)::bigint, min_recovery_end_lsn, min_recovery_end_timeline, backup_start_lsn, \
                 backup_end_lsn, end_of_backup_record_required, extract(epoch FROM pg_control_last_modified)::bigint \
                 FROM pg_control_checkpoint(), pg_control_recovery(), pg_control_system()",
            )
            .unwrap();
        let copy = control.checkpoint_copy;
        let truth = |value: bool| if value { "t" } else { "f" };
        // Servers write an LSN with eight digits after the slash from 19 on.
        let told: Vec<String> =
            told.split('|').map(|field| field.parse().map_or(field.to_owned(), |lsn: pgwal::Lsn| lsn.to_string())).collect();
        let read = [
            control.checkpoint.to_string(),
            copy.redo.to_string(),
            copy.timeline.to_string(),
            copy.prev_timeline.to_string(),
            truth(copy.full_page_writes.get()).to_owned(),
            copy.next_oid.0.to_string(),
            copy.time.0.to_string(),
            control.min_recovery_point.to_string(),
            control.min_recovery_timeline.0.to_string(),
            control.backup_start.to_string(),
            control.backup_end.to_string(),
            truth(control.backup_end_required).to_owned(),
            control.time.0.to_string(),
        ];
        assert_eq!(told, read, "PostgreSQL {}", postgres.major);
        let settings = control.settings;
        let three = (settings.max_connections, settings.max_prepared_transactions, settings.max_locks_per_transaction);
        assert_eq!((control.state, three, settings.wal_level.name()), (DbState::IN_PRODUCTION, (33, 5, 77), "replica"));
        assert_eq!(settings.max_wal_senders, (postgres.major >= 12).then_some(10));
    }
}
