//! Commands that make datasets and models out of crops.

pub mod access;
pub mod balance;
pub mod curate;
pub mod duplicates;
pub mod evaluate;
pub mod export;
pub mod faces;
pub mod features;
pub mod identities;
pub mod index;
pub mod models;
pub mod rescore;
pub mod selection;
pub mod suggest;
pub mod synthetic;
pub mod train;
pub mod users;
pub mod verdicts;
pub mod versions;
