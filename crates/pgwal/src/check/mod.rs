//! Checking WAL: everything that the format allows to check, without stopping at damage.

mod finding;

pub use finding::{Action, Check, Class, Finding, Problem};
