//! `facemill synthetic`: labelled crops made from photographs of whole heads.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::Serialize;

use crate::cli::dataset::train::progress_bar;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_note, print_text};
use crate::cli::settings::names;
use crate::domain::{FacePolicy, ImageFormat, LandmarkScheme, Search};
use crate::inference::Models;
use crate::training::labels::{self, LabelledCrop};
use crate::training::random::Random;
use crate::training::synthetic::{BORDER, GhostLabel, Ghosts, Portrait, SyntheticCrop, crop};
use crate::vision::detector::Detector;
use crate::vision::image::{Limits, decode, encode};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with photographs of whole heads, one person each; the file name is the person's name
    photos: PathBuf,
    /// Folder with a mask PATH.png for each photograph PATH; models/synthetic/masks.py makes them
    #[arg(long, value_name = "DIR")]
    masks: PathBuf,
    /// Output folder: crops, labels.jsonl, border.jsonl (crops on which people disagree) and unmirrored.jsonl (NG crops
    /// with their true content in place of the mirror)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Crops per photograph; one in five is OK
    #[arg(long, default_value_t = 25)]
    per_photo: usize,
    /// Seed of the random windows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder with the models
    #[arg(long, env = Models::ENV, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The model of the landmarks that place the crops
    #[arg(long, env = "FACEMILL_LANDMARKS", value_parser = names::landmarks(), default_value_t)]
    landmarks: LandmarkScheme,
}

/// One line of a label file: the label and the values that decided it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    label: &'a LabelledCrop,
    /// The score, and the shares that it follows from.
    ghosts: f64,
    above: f64,
    below: f64,
    overwritten: f64,
    quality: u8,
    size: u32,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let models = Models::find(args.models.clone());
    let detector = Detector::open(&models, 1, args.landmarks).map_err(Failure::broken)?;
    let mut photos = Vec::new();
    list(&args.photos, &mut photos).map_err(|error| unusable(&args.photos, error))?;
    photos.sort();
    fs::create_dir_all(args.out.join("unmirrored")).map_err(|error| unusable(&args.out, error))?;
    let mut writer = Writer::create(&args.out)?;
    let bar = progress_bar(photos.len() * args.per_photo);
    for photo in &photos {
        let name = photo.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match portrait(&args, photo, &detector) {
            Ok(portrait) => cut(&portrait, &detector, &name, &args, &mut writer)?,
            Err(reason) => print_note(format_args!("skipped {}: {reason}", photo.display())),
        }
        bar.inc(args.per_photo as u64);
    }
    bar.finish_and_clear();
    writer.finish()
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::broken(format!("{}: {error}", path.display()))
}

fn list(folder: &Path, photos: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, photos)?;
        } else if path.extension().is_some_and(|ending| ending == "jpg" || ending == "png") {
            photos.push(path);
        }
    }
    Ok(())
}

fn portrait(args: &Args, photo: &Path, detector: &Detector) -> Result<Portrait, String> {
    let bytes = fs::read(photo).map_err(|error| error.to_string())?;
    let picture = decode(&bytes, Limits::default()).map_err(|error| error.to_string())?;
    let mut mask = args.masks.join(photo.strip_prefix(&args.photos).unwrap_or(photo)).into_os_string();
    mask.push(".png");
    let mask = image::open(&mask).map_err(|error| format!("its mask {}: {error}", mask.display()))?.into_luma8();
    let face =
        detector.find(&picture, Search::Guided, args.landmarks, 1, FacePolicy::One).map_err(|none| none.to_string())?;
    Portrait::new(picture, &mask, face.landmarks).map_err(|error| error.to_string())
}

/// Writes crops of one photograph: one in five is OK, as in the original dataset, plus as many border crops.
fn cut(portrait: &Portrait, detector: &Detector, name: &str, args: &Args, writer: &mut Writer) -> Result<(), Failure> {
    const TRIES: usize = 2000;
    let mut random = Random::seeded(args.seed);
    name.bytes().for_each(|byte| random = Random::seeded(random.bits() ^ u64::from(byte)));
    let fifth = args.per_photo.div_ceil(5);
    let mut left = [args.per_photo - fifth, fifth, fifth];
    for _ in 0..TRIES * args.per_photo {
        if left == [0, 0, 0] {
            break;
        }
        if let Some(crop) = crop(portrait, &mut random, |label| left[label as usize] > 0)
            && detector.check_crop(&crop.crop).is_ok()
        {
            left[crop.label as usize] -= 1;
            writer.write(&crop, name)?;
        }
    }
    Ok(())
}

struct Writer {
    out: PathBuf,
    labels: BufWriter<File>,
    border: BufWriter<File>,
    unmirrored: BufWriter<File>,
    written: usize,
}

impl Writer {
    fn create(out: &Path) -> Result<Self, Failure> {
        let create = |name: &str| {
            let path = out.join(name);
            File::create(&path).map(BufWriter::new).map_err(|error| unusable(&path, error))
        };
        let (labels, border) = (create(labels::FILE)?, create("border.jsonl")?);
        Ok(Self { out: out.into(), labels, border, unmirrored: create("unmirrored.jsonl")?, written: 0 })
    }

    fn write(&mut self, crop: &SyntheticCrop, name: &str) -> Result<(), Failure> {
        let file = PathBuf::from(format!("{name}-{:06}.png", self.written));
        let ghosts = crop.ghosts.score();
        self.written += 1;
        let label = LabelledCrop {
            file: file.clone(),
            ok: if crop.label == GhostLabel::Border { ghosts < BORDER } else { crop.label == GhostLabel::Ok },
            group: Some(name.into()),
            mirrored: crop.mirrored.share,
            mirrored_head: crop.mirrored.head,
            mirrored_grid: crop.mirrored.grid.to_vec(),
        };
        let picture = self.out.join(&file);
        save(&picture, &crop.crop)?;
        let size = crop.crop.width();
        let Ghosts { above, below, overwritten } = crop.ghosts;
        let line = |label| Line { label, ghosts, above, below, overwritten, quality: crop.quality, size };
        let lines = if crop.label == GhostLabel::Border { &mut self.border } else { &mut self.labels };
        append(lines, &line(&label)).map_err(|error| unusable(&self.out, error))?;
        if let Some(real) = &crop.unmirrored {
            let file = Path::new("unmirrored").join(&file);
            save(&self.out.join(&file), real)?;
            let label = LabelledCrop {
                file,
                ok: true,
                mirrored: 0.0,
                mirrored_head: 0.0,
                mirrored_grid: vec![0.0; 16],
                group: label.group.clone(),
            };
            append(&mut self.unmirrored, &line(&label)).map_err(|error| unusable(&self.out, error))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        for file in [&mut self.labels, &mut self.border, &mut self.unmirrored] {
            file.flush().map_err(|error| unusable(&self.out, error))?;
        }
        print_text(&format!("{} in {}\n", counted(self.written as u64, "crop"), self.out.display()))
    }
}

fn append(file: &mut BufWriter<File>, line: &Line<'_>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

fn save(path: &Path, picture: &RgbImage) -> Result<(), Failure> {
    let bytes = encode(picture, ImageFormat::Png).map_err(|error| unusable(path, error))?;
    fs::write(path, bytes).map_err(|error| unusable(path, error))
}
