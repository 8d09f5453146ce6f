//! Streaming replication: the WAL of a live server, taken as a standby's walreceiver takes it.
//!
//! - [`command`] has the commands that a walsender takes.
//! - [`connection`] talks to a server: TLS, logging in, queries, COPY.
//! - [`conninfo`] has where and how to connect: connection strings, service and password files, variables.
//! - [`doctor`] finds what is wrong with a replication setup.
//! - [`receive`] takes WAL from a walsender into [`segments`], by way of a [`receiver`] that verifies it.
//! - [`backup`] takes base backups.
//! - [`slots`] has the replication slots of a server.
//! - [`live`] has records as the server writes them.
//! - [`lock`] keeps a second receiver out of a directory.
//! - [`message`] has what walsender and walreceiver say to each other, without sockets, for either side.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo))]
// A library prints nothing.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod backup;
pub mod command;
pub mod compress;
pub mod connection;
pub mod conninfo;
pub mod doctor;
mod input_file;
pub mod live;
pub mod lock;
pub mod message;
pub mod receive;
pub mod receiver;
mod segment_start;
pub mod segments;
pub mod slots;
mod walsender;
