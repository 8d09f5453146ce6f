//! Messages of streaming replication, as they stand in `CopyData`: what walsender and walreceiver say to each other.
