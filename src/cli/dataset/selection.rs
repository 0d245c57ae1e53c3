//! The flags that select faces for a dataset.

use crate::archive::versions::VersionSelection;
use crate::cli::dataset::faces;
use crate::dataset::Query;
use crate::dataset::caps::Caps;
use crate::dataset::page::{Order, UnknownSort};
use crate::dataset::selection::SelectionSettings;

/// Width and height of the pictures without --size, pixels.
const DEFAULT_SIZE: u32 = 512;
/// The largest picture, pixels.
const MAX_SIZE: i64 = 8192;

#[derive(Debug, clap::Args)]
pub struct SelectionArgs {
    /// Selects the faces that fulfil this query; docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", default_value = "status=ok", value_parser = faces::query)]
    query: Query,
    /// Which faces come first if there are more than --num: a sort of `facemill faces`
    #[arg(long, value_name = "FIELD", default_value = "-p_ok", allow_hyphen_values = true, value_parser = sort)]
    sort: Sorted,
    /// The most faces [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    num: Option<u64>,
    /// Width and height of the pictures, in pixels [default: 512, or as the version of --frozen]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=MAX_SIZE))]
    size: Option<u32>,
    /// Enlarges smaller crops, which are left out otherwise
    #[arg(long)]
    upscale: bool,
    #[command(flatten)]
    caps: CapArgs,
    /// Selects placeholders, too: originals that photos of several labels share
    #[arg(long)]
    placeholders: bool,
    /// Selects near-duplicates, too, which `facemill duplicates` has found: otherwise the best crop of each photograph
    #[arg(long)]
    duplicates: bool,
}

#[derive(Debug, clap::Args)]
pub struct CapArgs {
    /// The most faces with one label
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_per_label: Option<u64>,
    /// The most faces that look like one person, as `facemill identities` has found
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_per_identity: Option<u64>,
}

impl CapArgs {
    pub fn caps(&self) -> Caps {
        Caps { per_label: size_of(self.max_per_label), per_identity: size_of(self.max_per_identity) }
    }
}

fn size_of(number: Option<u64>) -> Option<usize> {
    number.map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

/// An order with its name.
#[derive(Debug, Clone)]
struct Sorted {
    name: String,
    order: Order,
}

fn sort(text: &str) -> Result<Sorted, UnknownSort> {
    Ok(Sorted { name: text.to_owned(), order: text.parse()? })
}

impl SelectionArgs {
    /// The flags that say nothing when the faces are those of a version.
    pub const OF_QUERY: [&str; 7] =
        ["query", "sort", "num", "max_per_label", "max_per_identity", "placeholders", "duplicates"];

    pub fn settings(&self) -> SelectionSettings {
        SelectionSettings {
            query: self.query.clone(),
            order: self.sort.order,
            sort: self.sort.name.clone(),
            number: size_of(self.num),
            size: self.size(),
            upscale: self.upscale,
            caps: self.caps.caps(),
            placeholders: self.placeholders,
            duplicates: self.duplicates,
        }
    }

    /// Width and height of the pictures of a query, pixels.
    pub fn size(&self) -> u32 {
        self.size.unwrap_or(DEFAULT_SIZE)
    }

    /// The size of the pictures of a version, in pixels, and whether smaller crops are enlarged: as the version was frozen,
    /// unless --size says another size.
    pub fn pictures_of(&self, version: &VersionSelection) -> (u32, bool) {
        match self.size {
            Some(size) => (size, self.upscale),
            None => (version.size, self.upscale || version.upscale),
        }
    }

    /// The number that was asked for.
    pub fn wanted(&self) -> Option<u64> {
        self.num
    }
}
