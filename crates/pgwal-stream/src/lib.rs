//! Streaming replication: the WAL of a live server, taken as a standby's walreceiver takes it.
//!
//! - [`connection`] talks to a server: TLS, logging in, queries, COPY.
//! - [`conninfo`] has where and how to connect: connection strings, service and password files, variables.
//! - [`message`] has what walsender and walreceiver say to each other, without sockets, for either side.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo))]

pub mod connection;
pub mod conninfo;
pub mod message;
