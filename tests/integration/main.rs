//! The integration tests, in one program: one link instead of a dozen.

mod browser;
mod classifier;
mod cluster;
mod conformance;
mod curation;
mod dashboards;
mod dataset;
mod export;
mod fetch;
mod layers;
mod pictures;
mod privacy;
mod rabbitmq;
mod redis;
mod report;
mod run;
mod s3;
mod services;
mod shared_state;
mod source;
mod source_rules;
mod training;
mod verdicts;
mod versions;
mod vision;
mod worker;
