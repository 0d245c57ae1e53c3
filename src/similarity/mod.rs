//! Which crops are alike: a search among fingerprints, and groups of duplicates.
//!
//! [`multi_index`] finds all pairs of fingerprints that differ by few bits, [`groups`] joins pairs into groups. Neither
//! knows pictures or stores.

pub mod groups;
pub mod multi_index;
