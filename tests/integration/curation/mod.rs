//! `facemill curate` as a process, and its API.

mod client;
mod judging;
