//! The way of a photo: stages, and what drives them.

pub mod classify;
pub mod crop;
pub mod detect;
pub mod fetch;
pub mod local;
pub mod producer;
pub mod stage;
pub mod worker;
