//! The index of faces: what curation, reports, exports and training read.
//!
//! The index is a SQLite file that is derived from the records of a run. It can be deleted at any time and is made
//! again. Whoever opens it keeps the fields that can be filtered and sorted in memory, in columns ([`columns`]): any
//! filter over a million faces is then a scan of a few milliseconds, whatever it combines, and no SQL index has to fit
//! it. [`query`] has the language of the filters.
//!
//! What it is filled from ([`follow`]):
//! - Faces and endings come from the feed of endings and the records behind it. The index stores its position in the
//!   feed together with what it read; a feed of another epoch starts it again.
//! - Predictions are those of the run's current classifier. A change of the classifier empties the table `predictions`,
//!   which is filled again from the archive by (crop, model); the records are not read again. A change of the threshold
//!   changes one number.
//! - Which originals are shared follows from the endings: a table of originals and labels, kept by triggers, and two
//!   columns in memory ([`placeholder`]).
//! - Groups of duplicates belong to crops ([`duplicates`]): the table `duplicates` has those that were found last, and a
//!   column in memory has them for each face. Which face is the best of its group follows from the faces that are there.
//! - Identities belong to crops, too ([`identities`]): the table `identities`, and a number for each face. Which labels
//!   disagree with the look of their faces follows from labels and identities, and is counted when somebody asks.
//! - Verdicts belong to crops: the table `verdicts` has all of them, the table `crop_verdicts` what counts for each crop,
//!   from the log of verdicts, with a position of its own in that log. Columns in memory have it for each face, so that queries and counts can name it. A face
//!   whose photo ends again with other bytes has another crop, and so no verdict.

pub mod balance;
pub mod caps;
mod columns;
pub mod duplicates;
mod ending;
pub mod export_filter;
pub mod face;
pub mod follow;
mod group_place;
mod histogram_part;
pub mod identities;
pub mod index;
pub mod interval;
pub mod judging;
pub mod ok_left;
pub mod page;
mod photo_urls;
pub mod placeholder;
pub mod quality_histogram;
pub mod query;
mod removal;
mod rows;
pub mod selection;
pub mod shared;
pub mod stored;
pub mod suggested;
pub mod verdict_history;
mod verdict_table;
mod without_face;
mod wrong_person;

pub use columns::Rows;
pub use ending::{EndedPhoto, EndingCount};
pub use face::{Face, FaceStatus, FaceVerdict};
pub use follow::{FollowError, IndexSource};
pub use index::{Change, Index, IndexError};
pub use page::{Cursor, Direction, Page, Sort};
pub use query::{Query, QueryError};
pub use shared::SharedIndex;
