//! The words of the domain: photos, faces, crops, predictions, and how a photo ends.
//!
//! Everything that travels between stages, or is written for the user, is defined here once. This module imports no
//! other module of the program.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

pub mod calendar;
mod cause;
pub mod clock;
mod crop;
mod face;
mod fingerprint;
pub mod hash;
mod id;
mod image;
mod message;
pub mod named;
mod person;
mod photo;
pub mod photo_url;
mod prediction;
mod printable;
mod quality;
mod record;
mod run;
mod score_message;
mod stage;
mod status;
mod stored_url;
mod verdict;
mod version_name;

pub use cause::{Cause, CauseCode};
pub use crop::{Align, Crop, Fill};
pub use face::{Face, FacePolicy, LandmarkScheme, Landmarks, Search};
pub use fingerprint::{BadFingerprint, Fingerprint};
pub use hash::{BadContentHash, ContentHash};
pub use id::Id;
pub use image::{Decoding, ImageFormat, unsupported_format};
pub use message::{BadMessage, Message};
pub use named::UnknownName;
pub use person::{BadUserName, Role, UserName};
pub use photo::{Candidate, Facts, Original, Photo, PhotoKey, Trace};
pub use prediction::Prediction;
pub use printable::{Printable, PrintableText};
pub use quality::{LandmarkReference, Quality, Spread};
pub use record::Record;
pub use run::{BadRunName, RunName};
pub use score_message::ScoreMessage;
pub use stage::StageName;
pub use status::{Ending, Position, State};
pub use stored_url::{NotStored, StoredUrl};
pub use verdict::{BadVerdict, BadVerdictId, Judgement, NgReason, SeenPrediction, Selection, Verdict, VerdictId, View};
pub use version_name::{BadVersionName, VersionName};
