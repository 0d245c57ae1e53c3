//! `facemill curate` and `facemill users` as processes, and the API.

mod client;
mod judging;
mod users;
