//! What an export is to have.

use serde::Serialize;

use crate::dataset::Query;
use crate::dataset::page::Order;
use crate::domain::ImageFormat;
use crate::domain::named::named_enum;

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
    /// In which values pixels are averaged when a crop is resized.
    pub enum Light is "a kind of light" {
        /// In proportion to light: fine patterns keep their brightness.
        Linear = "linear",
        /// In the values of sRGB, as most tools do.
        Plain = "plain",
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

#[derive(Debug, Clone)]
pub struct ExportSettings {
    pub query: Query,
    /// Which faces come first, if there are more than wanted. The order of the pictures is that of the photo ids.
    pub order: Order,
    /// As the user gave it.
    pub sort: String,
    /// The most faces; none: all.
    pub number: Option<usize>,
    /// Width and height of the pictures, pixels.
    pub size: u32,
    /// Whether smaller crops are enlarged; otherwise they are left out.
    pub upscale: bool,
    pub light: Light,
    pub format: ExportFormat,
    /// PNG or JPEG. The format `stylegan` has PNG only.
    pub image: ImageFormat,
    pub classes: Classes,
    /// The most faces with one label, by name, or by id without one; none: any number.
    pub per_label: Option<usize>,
    /// Whether placeholders are exported.
    pub placeholders: bool,
}

/// The settings as a manifest has them.
#[derive(Debug, Serialize)]
pub struct ExportSettingsText {
    pub query: String,
    pub sort: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    pub size: u32,
    pub upscale: bool,
    pub filter: &'static str,
    pub light: &'static str,
    pub format: &'static str,
    pub image: &'static str,
    pub classes: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_label: Option<usize>,
    pub placeholders: bool,
}

impl ExportSettings {
    pub fn text(&self) -> ExportSettingsText {
        ExportSettingsText {
            query: self.query.to_string(),
            sort: self.sort.clone(),
            number: self.number,
            size: self.size,
            upscale: self.upscale,
            filter: "lanczos3",
            light: self.light.as_str(),
            format: self.format.as_str(),
            image: self.image.extension(),
            classes: self.classes.as_str(),
            per_label: self.per_label,
            placeholders: self.placeholders,
        }
    }
}
