//! The flags for reading a source: the same for every command that does.

use clap::Args;

use crate::cli::failure::Failure;
use crate::source::{Mapping, Options};

/// How a source is read.
#[derive(Debug, Clone, Args)]
pub struct ReadingArgs {
    /// Name of a table or column: photos=gallery.images, photos.photo_url=images.url, photos.posted_at= (none)
    #[arg(long = "map", value_name = "NAME=NAME", help_heading = "Source")]
    map: Vec<String>,
    /// Precedes every id of the source, so that several sources of one run cannot have the same ids
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "Source")]
    id_prefix: String,
}

impl ReadingArgs {
    /// `source`: the name of the source in the records. None: the records do not name it.
    pub fn options(&self, source: Option<&str>) -> Result<Options, Failure> {
        Ok(Options {
            mapping: Mapping::parse(&self.map).map_err(Failure::broken)?,
            name: source.map(|name| if name == "-" { "standard input".to_owned() } else { name.to_owned() }),
            id_prefix: self.id_prefix.clone(),
        })
    }
}
