//! `facemill curate` and `facemill users` as processes, and the API.

mod access;
mod api;
mod bad_requests;
mod bulk;
pub mod client;
mod following;
mod identities;
mod inside;
mod judging;
mod lists;
mod pictures;
mod schema;
pub mod suggested;
mod training;
mod users;
mod verdicts;
pub mod visitor;
