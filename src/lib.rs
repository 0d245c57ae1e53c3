//! facemill turns the dump of a photo database into a clean, aligned face dataset.
//!
//! The layers, from the top down. A module imports only from layers below its own; `tests/integration/layers.rs` checks
//! this.
//!
//! ```text
//! cli/                                              flags in, text or JSON out
//! curation/  export/  report/  demo/                what people see
//! services/                                         what people and workers do with a run
//! web/  capacity/  training/  similarity/           HTTP server; simulation of a run; training; crops that are alike
//! pipeline/                                         stages, worker, producer, everything in one process
//! dataset/                                          the index of faces and the query language
//! archive/                                          typed documents in the object store
//! verdicts/  ledger/  cluster/                      judgements of people; status of every photo; workers, hosts, pauses
//! broker/  objects/  net/  source/  classifier/     interfaces to the outside, and their adapters
//! vision/                                           faces, pixels and geometry
//! inference/  redis/  sqlite  telemetry/            onnxruntime and shared clients; logs, metrics, traces
//! tls  retry  server_error  atomic_file             certificates, waits, errors of servers, whole files
//! memory                                            limits of memory for the whole process
//! domain/                                           the data types of the pipeline
//! ```
//!
//! `domain`, `inference`, `vision`, `classifier`, `similarity`, `training`, `source` and `demo` are crates of their own.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]
// They panic where nobody reads: `cli::output` has the functions that do not.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

pub use facemill_classifier as classifier;
pub use facemill_demo as demo;
pub use facemill_domain as domain;
pub use facemill_inference as inference;
pub use facemill_similarity as similarity;
pub use facemill_source as source;
pub use facemill_training as training;
pub use facemill_vision as vision;

pub mod archive;
pub mod atomic_file;
pub mod broker;
pub mod capacity;
pub mod cli;
pub mod cluster;
pub mod curation;
pub mod dataset;
pub mod error_chain;
pub mod export;
pub mod ledger;
pub mod memory;
pub mod net;
pub mod objects;
pub mod pipeline;
pub mod redis;
pub mod report;
pub mod retry;
pub mod server_error;
pub mod services;
pub mod sqlite;
pub mod telemetry;
pub mod tls;
pub mod verdicts;
pub mod versions;
pub mod web;
