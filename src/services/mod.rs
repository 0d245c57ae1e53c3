//! What people and workers do with a run or an installation.
//!
//! A service takes the ledger, the broker and the objects, and returns values and errors. It prints nothing and knows
//! neither flags nor exit codes, so that a test calls it without a process.

pub mod audit;
pub mod audit_files;
pub mod crop_embeddings;
pub mod crop_features;
pub mod dead_letters;
pub mod duplicates;
pub mod evaluation;
pub mod health;
pub mod heartbeat;
pub mod identities;
pub mod judged_crops;
pub mod kept_originals;
pub mod learning_curve;
pub mod local_run;
pub mod measure;
pub mod missing_faces;
pub mod passwords;
pub mod photos_at;
pub mod queue_metrics;
pub mod rebuild;
pub mod recrop;
pub mod requeue;
pub mod rescore;
pub mod rescore_here;
pub mod rescore_queue;
pub mod rescore_worker;
pub mod run_target;
pub mod servers;
pub mod status;
pub mod story;
pub mod suggestions;
pub mod takedown;
pub mod tokens;
pub mod training;
pub mod users;
pub mod verdict_files;
pub mod why_not;
pub mod work;
pub mod worker_routes;
pub mod workers;

#[cfg(test)]
mod fixture;
