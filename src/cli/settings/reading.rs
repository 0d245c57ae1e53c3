//! The flags for reading a source: the same for every command that does.

use std::sync::Arc;

use clap::Args;

use crate::cli::failure::Failure;
use crate::source::judgements::{self, Judgements};
use crate::source::{Input, KeptColumn, Mapping, Options};

/// How a source is read.
#[derive(Debug, Clone, Args)]
pub struct ReadingArgs {
    /// Name of a table or column: photos=gallery.images, photos.photo_url=images.url, photos.posted_at= (none)
    #[arg(long = "map", value_name = "NAME=NAME", help_heading = "Source")]
    map: Vec<String>,
    /// Further column of the source that the records carry: photos.licence, labels.born, or LICENSE of a table
    #[arg(long, value_name = "COLUMN", help_heading = "Source")]
    keep: Vec<String>,
    /// Precedes every id of the source, so that several sources of one run cannot have the same ids
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "Source")]
    id_prefix: String,
    /// Table of judgements that the photos carry as columns: photo_id or url, status, and date if there is one
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    judgements: Option<Input>,
    /// Takes the label of each photo of a folder from its first sub-folder
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Source")]
    label_from: Option<LabelFrom>,
    /// Turns refusals that need not concern the candidates into warnings; they are counted at the end
    #[arg(long, help_heading = "Source")]
    lenient: bool,
    /// Delimiter of a CSV file, if it is no comma
    #[arg(long, value_name = "CHARACTER", value_parser = parse_delimiter, help_heading = "Source")]
    delimiter: Option<u8>,
}

fn parse_delimiter(text: &str) -> Result<u8, &'static str> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("expected one ASCII character, such as ';'"),
    }
}

/// Where the labels of the photos of a folder come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LabelFrom {
    /// The first sub-folder
    Folder,
}

impl ReadingArgs {
    /// `source`: the name of the source in the records. None: the records do not name it.
    pub fn options(&self, source: Option<&str>) -> Result<Options, Failure> {
        let mapping = Mapping::parse(&self.map).and_then(|mapping| mapping.keep(&self.keep));
        let mapping = mapping.map_err(Failure::usage)?;
        let judgements = self.judgements.as_ref().map(Judgements::read).transpose().map_err(Failure::broken)?;
        let is_taken = |kept: &KeptColumn| judgements::COLUMNS.contains(&kept.name.as_str());
        if judgements.is_some() && mapping.kept().iter().any(is_taken) {
            return Err(Failure::usage("--keep: --judgements adds the columns judgement and judged_at"));
        }
        Ok(Options {
            mapping,
            judgements: judgements.map(Arc::new),
            name: source.map(|name| if name == "-" { "standard input".to_owned() } else { name.to_owned() }),
            id_prefix: self.id_prefix.clone(),
            label_from_folder: self.label_from == Some(LabelFrom::Folder),
            lenient: self.lenient,
            delimiter: self.delimiter,
            ..Options::default()
        })
    }
}
