//! A face on its way into a dataset.

use crate::dataset::Face;

#[derive(Debug, Clone)]
pub struct Entry {
    /// The name of the picture within the dataset.
    pub name: String,
    pub face: Face,
    pub label: String,
    /// The class, if the dataset has classes.
    pub class: Option<usize>,
}
