//! The index of faces: what curation, reports, exports and training read.
//!
//! The index is a SQLite file that is derived from the records of a run. It can be deleted at any time and is made again.
//! Whoever opens it keeps the fields that can be filtered and sorted in memory, in columns ([`columns`]): any filter over
//! a million faces is then a scan of a few milliseconds, whatever it combines, and no SQL index has to fit it.
//! [`query`] has the language of the filters.

mod columns;
pub mod face;
pub mod follow;
pub mod index;
pub mod page;
pub mod query;

pub use face::Face;
pub use index::{Change, Index, IndexError};
pub use page::{Cursor, Direction, Page, Sort};
pub use query::{Query, QueryError};
