//! The files of an export.

use std::ops::Range;

use super::settings::{ExportFormat, ExportSettings};
use crate::dataset::selection::SelectedFace;
use crate::domain::ContentHash;

/// A file with many faces. It appears as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Relative to the destination; empty: the destination itself.
    pub name: String,
    /// The faces in it, by their position in the selection.
    pub faces: Range<usize>,
}

/// Faces in a shard of a dataset: with 512 pixels, a quarter to three quarters of a gigabyte.
const SHARD: usize = 1000;

/// The files of a dataset that have many faces each; a folder has none.
pub fn shards(format: ExportFormat, faces: usize) -> Vec<Shard> {
    let count = faces.div_ceil(SHARD);
    let name = |number: usize| match format {
        ExportFormat::StyleGan | ExportFormat::Folder => String::new(),
        ExportFormat::WebDataset => format!("{number:05}.tar"),
        ExportFormat::Parquet => format!("data/train-{number:05}-of-{count:05}.parquet"),
    };
    match format {
        ExportFormat::StyleGan => vec![Shard { name: name(0), faces: 0..faces }],
        ExportFormat::Folder => Vec::new(),
        ExportFormat::WebDataset | ExportFormat::Parquet => (0..count)
            .map(|number| Shard { name: name(number), faces: number * SHARD..faces.min((number + 1) * SHARD) })
            .collect(),
    }
}

/// The name of a picture within the dataset. `at`: the position of the face in the selection.
pub fn entry_name(settings: &ExportSettings, at: usize, face: &SelectedFace) -> String {
    let extension = settings.image.extension();
    match settings.format {
        // As the tool of StyleGAN names what it converts.
        ExportFormat::StyleGan => {
            let number = format!("{at:08}");
            format!("{}/img{number}.png", &number[..5])
        }
        ExportFormat::Folder => picture_name(settings, face.crop),
        // A key of WebDataset has no dots: what follows the first one is the extension. Numbers would come again in the
        // shards of the earlier export.
        ExportFormat::WebDataset if settings.is_of_changes() => format!("{}.{extension}", face.crop),
        ExportFormat::WebDataset | ExportFormat::Parquet => format!("{at:08}.{extension}"),
    }
}

/// The name of the picture of a crop in a folder. The same crop has the same name in later exports.
pub fn picture_name(settings: &ExportSettings, crop: ContentHash) -> String {
    let hash = crop.to_string();
    format!("images/{}/{hash}.{}", &hash[..2], settings.image.extension())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_hold_every_face_once() {
        let shards = shards(ExportFormat::Parquet, 2500);
        let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
        let parts = ["data/train-00000-of-00003.parquet", "data/train-00001-of-00003.parquet"];
        assert_eq!((&names[..2], names[2]), (&parts[..], "data/train-00002-of-00003.parquet"));
        assert!(shards.iter().flat_map(|shard| shard.faces.clone()).eq(0..2500));
    }
}
