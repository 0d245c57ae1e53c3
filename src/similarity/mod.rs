//! Which crops are alike: a search among fingerprints, and groups of duplicates.
//!
//! [`multi_index`] finds all pairs of fingerprints that differ by few bits, [`likeness`] compares the features of two
//! crops, [`groups`] joins pairs into groups. None of them knows pictures or stores.

pub mod groups;
pub mod likeness;
pub mod multi_index;
