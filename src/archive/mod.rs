//! Typed documents in the object store.

pub mod records;
