//! Commands that read a run, an installation or this machine and change nothing in it.

pub mod audit;
pub mod describe;
pub mod doctor;
pub mod manual;
pub mod report;
pub mod simulate;
pub mod status;
pub mod why;
