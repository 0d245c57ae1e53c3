//! `facemill curate` and `facemill users` as processes, and the API.

mod access;
mod client;
mod judging;
mod users;
pub mod visitor;
