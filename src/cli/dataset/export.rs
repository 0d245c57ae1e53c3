//! `facemill export`.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::cli::dataset::faces;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::process::INTERRUPTED;
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::Query;
use crate::dataset::page::Order;
use crate::domain::ImageFormat;
use crate::export::{
    Classes, Destination, ExportError, ExportFormat, ExportJob, ExportSettings, Exported, Light, Selection, export,
    select,
};

/// The largest picture, pixels.
const MAX_SIZE: i64 = 8192;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the dataset goes: a file for stylegan, else a folder; s3://BUCKET/KEY streams without a local copy
    #[arg(long, value_name = "PATH")]
    to: String,
    /// stylegan (one zip), folder (pictures and metadata.jsonl), webdataset (tar shards) or parquet
    #[arg(long, value_name = "FORMAT", default_value = "stylegan")]
    format: ExportFormat,
    /// Exports the faces that fulfil this query; docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", default_value = "status=ok", value_parser = faces::query)]
    query: Query,
    /// Which faces come first if there are more than --num: a sort of `facemill faces`
    #[arg(long, value_name = "FIELD", default_value = "-p_ok", allow_hyphen_values = true, value_parser = sort)]
    sort: Sorted,
    /// The most faces [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    num: Option<u64>,
    /// Width and height of the pictures, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=MAX_SIZE))]
    size: u32,
    /// Enlarges smaller crops, which are left out otherwise
    #[arg(long)]
    upscale: bool,
    /// Averages pixels in linear light, or plain in the values of sRGB as most tools do
    #[arg(long, value_name = "LIGHT", default_value = "linear")]
    light: Light,
    /// The format of the pictures: png or jpg; a stylegan zip has png only
    #[arg(long, value_name = "FORMAT", default_value = "png", value_parser = image_format)]
    image: ImageFormat,
    /// none, or label: a class for each label, in the order of the names
    #[arg(long = "class", value_name = "CLASSES", default_value = "none")]
    classes: Classes,
    /// The most faces with one label
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_per_label: Option<u64>,
    /// Exports placeholders, too: originals that photos of several labels share
    #[arg(long)]
    placeholders: bool,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

/// An order with its name.
#[derive(Debug, Clone)]
struct Sorted {
    name: String,
    order: Order,
}

fn sort(text: &str) -> Result<Sorted, crate::dataset::page::UnknownSort> {
    Ok(Sorted { name: text.to_owned(), order: text.parse()? })
}

fn image_format(text: &str) -> Result<ImageFormat, &'static str> {
    match text {
        "png" => Ok(ImageFormat::Png),
        "jpg" | "jpeg" => Ok(ImageFormat::Jpeg),
        _ => Err("expected png or jpg"),
    }
}

impl Args {
    fn settings(&self) -> Result<ExportSettings, Failure> {
        if self.format == ExportFormat::StyleGan {
            if self.image != ImageFormat::Png {
                return Err(Failure::usage(
                    "a stylegan zip has png pictures only: leave out --image, or give --format folder",
                ));
            }
            if !self.size.is_power_of_two() {
                return Err(Failure::usage(format!(
                    "--size {}: StyleGAN needs a power of two, such as 256, 512 or 1024",
                    self.size
                )));
            }
        }
        let count = |number: Option<u64>| number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        Ok(ExportSettings {
            query: self.query.clone(),
            order: self.sort.order,
            sort: self.sort.name.clone(),
            number: count(self.num),
            size: self.size,
            upscale: self.upscale,
            light: self.light,
            format: self.format,
            image: self.image,
            classes: self.classes,
            per_label: count(self.max_per_label),
            placeholders: self.placeholders,
        })
    }

    fn destination(&self) -> Result<Destination, Failure> {
        let Some(address) = self.to.strip_prefix("s3://") else {
            return Ok(Destination::Local(PathBuf::from(&self.to)));
        };
        let (bucket, key) = address.split_once('/').unwrap_or_default();
        if bucket.is_empty() || key.is_empty() {
            return Err(Failure::usage(format!("--to {}: expected s3://BUCKET/KEY", self.to)));
        }
        if self.target.servers.are_given()
            && let Some(own) = self.target.servers.clients()?.objects.own_objects_below(bucket, key)
        {
            return Err(Failure::broken(format!(
                "--to {}: the installation keeps its own objects there (`{own}/`): name another key",
                self.to
            )));
        }
        let store = self.target.servers.s3.service().map_err(Failure::broken)?;
        Ok(Destination::S3 { store: store.in_bucket(bucket), key: key.to_owned() })
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let settings = args.settings()?;
    crate::cli::process::block_on(async {
        let to = args.destination()?;
        let target = args.target.open().await?;
        let (mut index, source) = args.index.open(&target)?;
        let bars = Bars::new(true);
        let updated = source.update(&mut index, &progress(&bars)).await;
        updated.map_err(Failure::broken)?;
        let selection = select(&index, &settings).map_err(Failure::broken)?;
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(crate::cli::process::signals(shutdown.clone()));
        let job = ExportJob {
            run: &target.run,
            index: &index,
            objects: target.objects.clone(),
            settings: &settings,
            selection: &selection,
            to: &to,
            shutdown,
        };
        let bar = bars.count("exporting", selection.faces.len() as u64);
        let exported = export(&job, &|faces| bar.inc(faces)).await;
        signals.abort();
        bars.clear();
        match exported {
            Ok(exported) if args.target.json => {
                print_json(&summary(&exported, &selection))?;
                Ok(ExitCode::SUCCESS)
            }
            Ok(exported) => {
                print_text(&text(&exported, &selection, &settings))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error @ ExportError::Interrupted) => {
                eprintln!("facemill: {error}");
                Ok(ExitCode::from(INTERRUPTED))
            }
            Err(error) => Err(Failure::broken(error)),
        }
    })
}

fn summary(exported: &Exported, selection: &Selection) -> serde_json::Value {
    serde_json::json!({
        "to": exported.to, "manifest": exported.manifest, "faces": exported.faces, "labels": exported.labels,
        "already_there": exported.already_there, "matching": selection.matching, "too_small": selection.too_small,
        "copies": selection.copies, "beyond_label_limit": selection.beyond_label_limit,
    })
}

fn text(exported: &Exported, selection: &Selection, settings: &ExportSettings) -> String {
    let mut text = format!(
        "{} faces of {} labels at {size}x{size} pixels: {}\n",
        exported.faces,
        exported.labels,
        exported.to,
        size = settings.size
    );
    let left_out = [
        (selection.too_small, format!("smaller than {} pixels", settings.size)),
        (selection.copies, "the crop of another photo".to_owned()),
        (selection.beyond_label_limit, "beyond the limit of their label".to_owned()),
    ];
    for (count, why) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("left out: {count}, {why}\n"));
    }
    if let Some(wanted) = settings.number.filter(|wanted| *wanted > exported.faces) {
        text.push_str(&format!("there are fewer than the {wanted} that --num asks for\n"));
    }
    if exported.already_there > 0 {
        text.push_str(&format!("{} were there already\n", exported.already_there));
    }
    text.push_str(&format!("manifest: {}\n", exported.manifest));
    text
}
