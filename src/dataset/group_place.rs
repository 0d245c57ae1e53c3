//! The place of a crop in a group of duplicates.

use rusqlite::types::ValueRef;

/// The place of a crop in a group of duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlace {
    /// The number of the group. Groups are numbered anew whenever duplicates are looked for.
    pub group: u32,
    /// The best crop has 0.
    pub place: u32,
}

/// From two columns of a row, which are NULL for a crop without a group.
pub fn group_place(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<GroupPlace>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => Ok(Some(GroupPlace { group: row.get(column)?, place: row.get(column + 1)? })),
    }
}
