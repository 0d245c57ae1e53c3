//! Which crops are alike: groups of duplicates, and of faces that look like one person.
//!
//! - Duplicates: [`multi_index`] finds all pairs of fingerprints that differ by few bits, [`likeness`] compares the features
//!   of two crops, [`groups`] joins pairs into groups.
//! - Identities: [`neighbours`] finds close pairs of embeddings, which are [`points`]; [`identities`](mod@identities) joins
//!   them into groups that stay small in space.
//!
//! Both keep disjoint sets (`parents.rs`). None of them knows pictures or stores.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

pub mod groups;
pub mod identities;
pub mod likeness;
pub mod multi_index;
pub mod neighbours;
mod parents;
pub mod points;
