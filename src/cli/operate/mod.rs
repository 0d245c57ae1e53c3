//! Commands that change an installation or a run.

pub mod dead;
pub mod measure;
pub mod pause;
pub mod produce;
pub mod rebuild;
pub mod retry;
pub mod takedown;
pub mod work;

mod filter;
