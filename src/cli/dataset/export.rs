//! `facemill export`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::archive::versions::{LeftOut, StoredVersions};
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::dataset::selection::SelectionArgs;
use crate::cli::dataset::versions::shards;
use crate::cli::failure::Failure;
use crate::cli::output::{faces_of_labels, print_json, print_note, print_text};
use crate::cli::process::Signals;
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::selection::{Selection, select};
use crate::domain::{ImageFormat, VersionName};
use crate::export::{
    Classes, Destination, ExportError, ExportFormat, ExportJob, ExportSettings, Exported, FaceSource, Origin,
    RemovedFace, VersionMark, export, only_changes,
};
use crate::services::run_target::RunTarget;
use crate::versions::{FrozenFaces, compare, header};
use crate::vision::rescale::Light;

/// Why a size is refused.
const STYLEGAN_SIZES: &str = "StyleGAN needs a power of two, such as 256, 512 or 1024";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the dataset goes: a file for stylegan, else a folder; s3://BUCKET/KEY streams without a local copy
    #[arg(long, value_name = "PATH")]
    to: String,
    /// stylegan (one zip), folder (pictures and metadata.jsonl), webdataset (tar shards) or parquet
    #[arg(long, value_name = "FORMAT", default_value = "stylegan")]
    format: ExportFormat,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Exports a version that `facemill dataset freeze` made: the same bytes each time
    #[arg(long, value_name = "NAME", conflicts_with_all = SelectionArgs::OF_QUERY)]
    frozen: Option<VersionName>,
    /// Exports only what the version of --frozen has changed since this version, and lists the pictures to delete in removed.jsonl
    #[arg(long, value_name = "NAME", requires = "frozen")]
    since: Option<VersionName>,
    /// Averages pixels in linear light, or plain in the values of sRGB as most tools do
    #[arg(long, value_name = "LIGHT", default_value = "linear")]
    light: Light,
    /// The format of the pictures: png or jpg; a stylegan zip has png only
    #[arg(long, value_name = "FORMAT", default_value = "png", value_parser = image_format)]
    image: ImageFormat,
    /// none, or label: a class for each label, in the order of the names
    #[arg(long = "class", value_name = "CLASSES", default_value = "none")]
    classes: Classes,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

fn image_format(text: &str) -> Result<ImageFormat, &'static str> {
    match text {
        "png" => Ok(ImageFormat::Png),
        "jpg" | "jpeg" => Ok(ImageFormat::Jpeg),
        _ => Err("expected png or jpg"),
    }
}

impl Args {
    /// Refuses flags that do not fit together.
    fn check(&self) -> Result<(), Failure> {
        if self.format == ExportFormat::StyleGan {
            if self.image != ImageFormat::Png {
                return Err(Failure::usage(
                    "a stylegan zip has png pictures only: leave out --image, or give --format folder",
                ));
            }
            let size = self.selection.size();
            if self.frozen.is_none() && !size.is_power_of_two() {
                return Err(Failure::usage(format!("--size {size}: {STYLEGAN_SIZES}")));
            }
        }
        if self.format == ExportFormat::StyleGan && self.since.is_some() {
            return Err(Failure::usage(
                "--since: the pictures of a stylegan zip are numbered, so that a part of one is of no use: give --format \
                 folder, webdataset or parquet, or leave out --since",
            ));
        }
        Ok(())
    }

    /// `size` in pixels; `upscale`: whether smaller crops are enlarged.
    fn settings(&self, origin: Origin, size: u32, upscale: bool) -> ExportSettings {
        let &Self { light, format, image, classes, .. } = self;
        ExportSettings { origin, size, upscale, light, format, image, classes }
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
            return Err(Failure::usage(format!(
                "--to {}: the installation keeps its own objects there (`{own}/`): name another key",
                self.to
            )));
        }
        let store = self.target.servers.s3.service().map_err(Failure::broken)?;
        Ok(Destination::S3 { store: store.in_bucket(bucket), key: key.to_owned() })
    }
}

/// What is exported.
struct Prepared {
    settings: ExportSettings,
    faces: Box<dyn FaceSource>,
    selection: Selection,
    removed: Option<Vec<RemovedFace>>,
}

impl Args {
    async fn of_query(&self, target: &RunTarget, bars: &Bars) -> Result<Prepared, Failure> {
        let wanted = self.selection.settings();
        let (mut index, source) = self.index.open(target)?;
        let updated = source.update(&mut index, &progress(bars)).await;
        updated.map_err(Failure::broken)?;
        let selection = select(&index, &wanted).map_err(Failure::broken)?;
        let (size, upscale) = (wanted.size, wanted.upscale);
        let settings = self.settings(Origin::Query(wanted), size, upscale);
        Ok(Prepared { settings, faces: Box::new(index), selection, removed: None })
    }

    async fn of_version(&self, name: &VersionName, target: &RunTarget, bars: &Bars) -> Result<Prepared, Failure> {
        let versions = StoredVersions::new(target.objects.clone(), target.run.clone());
        let frozen = FrozenFaces::open(&versions, name, &shards(bars, "reading")).await.map_err(Failure::broken)?;
        let (size, upscale) = self.selection.pictures_of(&frozen.header.selection);
        if self.format == ExportFormat::StyleGan && !size.is_power_of_two() {
            return Err(Failure::usage(format!("--frozen {name} --size {size}: {STYLEGAN_SIZES}")));
        }
        let earlier = match &self.since {
            Some(since) => Some(header(&versions, since).await.map_err(Failure::broken)?),
            None => None,
        };
        let since_mark = earlier.as_ref().map(VersionMark::of);
        let origin = Origin::Version { header: Box::new(frozen.header.clone()), since: since_mark };
        let settings = self.settings(origin, size, upscale);
        let mut selection = frozen.selection(size, upscale).map_err(Failure::broken)?;
        if selection.faces.is_empty() {
            return Err(Failure::broken(ExportError::TooSmall { count: selection.left_out.too_small, size }));
        }
        let Some(since) = &self.since else {
            return Ok(Prepared { settings, faces: Box::new(frozen), selection, removed: None });
        };
        let difference = compare(&versions, since, name).await.map_err(Failure::broken)?;
        let removed = only_changes(&mut selection, &difference, &settings);
        if selection.faces.is_empty() && removed.is_empty() {
            let (version, since) = (name.clone(), since.clone());
            return Err(Failure::broken(ExportError::Unchanged { version, since }));
        }
        Ok(Prepared { settings, faces: Box::new(frozen), selection, removed: Some(removed) })
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    args.check()?;
    crate::cli::process::block_on(async {
        let to = args.destination()?;
        let target = args.target.open().await?;
        let bars = Bars::new(true);
        let prepared = match &args.frozen {
            Some(name) => args.of_version(name, &target, &bars).await?,
            None => args.of_query(&target, &bars).await?,
        };
        let Prepared { settings, faces, selection, removed } = prepared;
        let signals = Signals::catch();
        let job = ExportJob {
            run: &target.run,
            faces: faces.as_ref(),
            objects: target.objects.clone(),
            settings: &settings,
            selection: &selection,
            removed: removed.as_deref(),
            to: &to,
            shutdown: signals.shutdown.clone(),
        };
        let bar = bars.count("exporting", selection.faces.len() as u64);
        let exported = export(&job, &|faces| bar.inc(faces)).await;
        bars.clear();
        match exported {
            Ok(exported) if args.target.json => {
                let Selection { matching, left_out, .. } = selection;
                let removed = removed.map(|removed| removed.len());
                print_json(&Summary { exported: &exported, matching, left_out, removed })?;
                Ok(ExitCode::SUCCESS)
            }
            Ok(exported) => {
                print_text(&text(&settings, args.selection.wanted(), &exported, &selection, removed.as_deref()))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error @ ExportError::Interrupted) => {
                print_note(error);
                Ok(signals.exit_code())
            }
            Err(error) => Err(Failure::broken(error)),
        }
    })
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    exported: &'a Exported,
    matching: u64,
    #[serde(flatten)]
    left_out: LeftOut,
    /// Faces that the earlier export has and this one has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
}

fn text(
    settings: &ExportSettings,
    wanted: Option<u64>,
    exported: &Exported,
    selection: &Selection,
    removed: Option<&[RemovedFace]>,
) -> String {
    let size = settings.size;
    let mut text = format!(
        "{} at {size}x{size} pixels: {}\n",
        faces_of_labels(exported.faces as u64, exported.labels as u64),
        exported.to
    );
    for (count, why) in selection.left_out.known_reasons(size) {
        text.push_str(&format!("left out: {count}, {why}\n"));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted > exported.faces as u64) {
        text.push_str(&format!("there are fewer than the {wanted} that --num asks for\n"));
    }
    if exported.already_there > 0 {
        text.push_str(&format!("{} were there already\n", exported.already_there));
    }
    if let Some(removed) = removed {
        text.push_str(&format!("to delete from the earlier export: {}, listed in removed.jsonl\n", removed.len()));
    }
    text.push_str(&format!("manifest: {}\n", exported.manifest));
    text
}
