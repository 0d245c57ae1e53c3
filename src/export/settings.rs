//! What an export is to have.

use serde::Serialize;

use crate::archive::versions::VersionHeader;
use crate::dataset::selection::SelectionSettings;
use crate::domain::{ContentHash, ImageFormat, VersionName, named_enum};
use crate::vision::rescale::Light;

named_enum! {
    /// The format of the dataset.
    pub enum ExportFormat is "an export format" {
        /// One zip for StyleGAN2-ADA, StyleGAN3 and EDM2: stored PNG files and `dataset.json`.
        StyleGan = "stylegan",
        /// Pictures and `metadata.jsonl`, as the `imagefolder` of Hugging Face wants them.
        Folder = "folder",
        /// Tar shards.
        WebDataset = "webdataset",
        /// Parquet files with embedded pictures, in row groups of 100.
        Parquet = "parquet",
    }
}

impl ExportFormat {
    /// The media type of a file with many pictures.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::StyleGan => "application/zip",
            Self::WebDataset => "application/x-tar",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Folder => "application/octet-stream",
        }
    }
}

named_enum! {
    /// The classes of pictures.
    pub enum Classes is "a kind of classes" {
        None = "none",
        /// One class for each label, numbered from 0 in the order of their names.
        Label = "label",
    }
}

/// Tells versions apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionMark {
    pub name: VersionName,
    pub digest: ContentHash,
}

impl VersionMark {
    pub fn of(header: &VersionHeader) -> Self {
        Self { name: header.name.clone(), digest: header.digest }
    }
}

/// Where the faces come from.
#[derive(Debug, Clone)]
pub enum Origin {
    Query(SelectionSettings),
    Version {
        header: Box<VersionHeader>,
        /// Only what this version does not have.
        since: Option<VersionMark>,
    },
}

/// The origin as a manifest has it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum OriginText {
    Query {
        query: String,
        sort: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        number: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        per_label: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        per_identity: Option<usize>,
        placeholders: bool,
        duplicates: bool,
    },
    Version {
        version: VersionMark,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<VersionMark>,
    },
}

impl Origin {
    fn text(&self) -> OriginText {
        match self {
            Self::Query(wanted) => OriginText::Query {
                query: wanted.query.to_string(),
                sort: wanted.sort.clone(),
                number: wanted.number,
                per_label: wanted.caps.per_label,
                per_identity: wanted.caps.per_identity,
                placeholders: wanted.placeholders,
                duplicates: wanted.duplicates,
            },
            Self::Version { header, since } => {
                OriginText::Version { version: VersionMark::of(header), since: since.clone() }
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct ExportSettings {
    pub origin: Origin,
    /// Width and height of the pictures, pixels.
    pub size: u32,
    /// Whether smaller crops are enlarged; otherwise they are left out.
    pub upscale: bool,
    pub light: Light,
    pub format: ExportFormat,
    /// PNG or JPEG. The format `stylegan` has PNG only.
    pub image: ImageFormat,
    pub classes: Classes,
}

/// The settings as a manifest has them.
#[derive(Debug, Serialize)]
pub struct ExportSettingsText {
    #[serde(flatten)]
    pub origin: OriginText,
    pub size: u32,
    pub upscale: bool,
    pub filter: &'static str,
    pub light: &'static str,
    pub format: &'static str,
    pub image: &'static str,
    pub classes: &'static str,
}

impl ExportSettings {
    /// Whether only what has changed since an earlier version is exported.
    pub fn is_of_changes(&self) -> bool {
        matches!(self.origin, Origin::Version { since: Some(_), .. })
    }

    pub fn text(&self) -> ExportSettingsText {
        ExportSettingsText {
            origin: self.origin.text(),
            size: self.size,
            upscale: self.upscale,
            filter: "lanczos3",
            light: self.light.as_str(),
            format: self.format.as_str(),
            image: self.image.extension(),
            classes: self.classes.as_str(),
        }
    }
}
