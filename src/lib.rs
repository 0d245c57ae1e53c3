//! facemill turns the dump of a photo database into a clean, aligned face dataset.
//!
//! The house, from the ground up; a floor knows only the floors below it:
//!
//! ```text
//! cli/                                         one file a command family
//! demo/   report/                              what a person looks at
//! pipeline/                                    stages, worker, producer, everything in one process
//! capacity                                     how long, and how many workers?
//! archive/                                     typed documents in the object store
//! classifier/                                  is the crop good enough to train on?
//! cluster/                                     what processes tell each other
//! ledger/  broker/  objects/  net/  source/    the ports and their adapters
//! vision/                                      pixels and numbers
//! inference/  sqlite  tls                      onnxruntime; one SQLite file; certificates
//! config  telemetry/  photo  calendar          settings, what is observed, the domain words
//! ```

pub mod archive;
pub mod broker;
pub mod capacity;
pub mod classifier;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dataset;
pub mod demo;
pub mod domain;
pub mod inference;
pub mod ledger;
pub mod net;
pub mod objects;
pub mod pipeline;
pub mod redis;
pub mod report;
pub mod source;
pub mod sqlite;
pub mod telemetry;
pub mod tls;
pub mod vision;
