//! The way of a photo: stages, and what drives them.

pub mod stage;
