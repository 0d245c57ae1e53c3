//! The stages that a photo passes, and the worker that runs them.

pub mod classify;
pub mod crop;
pub mod current_classifier;
pub mod detect;
pub mod event;
pub mod fetch;
pub mod gate;
pub mod handover;
pub mod host_faults;
pub mod local;
pub mod measures;
pub mod originals;
pub mod pause;
pub mod producer;
pub mod refused;
pub mod run_shapes;
pub mod sending;
pub mod spans;
pub mod stage;
pub mod stages;
pub mod store_faults;
pub mod stored_photos;
pub mod worker;
