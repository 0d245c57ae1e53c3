//! `facemill report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::dataset::index::{IndexArgs, progress, unrecorded_note};
use crate::cli::failure::Failure;
use crate::cli::folders::{folder_name, is_same_folder};
use crate::cli::output::{print_json, print_note, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::report::{About, Pictures, ReportProgress, write_all};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The P(OK) from which a crop counts as OK [default: the run's, see `facemill models`]
    #[arg(long, value_name = "P")]
    ok_threshold: Option<f64>,
    /// Output folder for the report [default: the run's own folder; `report` for a run on servers]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Puts small copies of all faces into the report, so that it can be looked at anywhere
    #[arg(long)]
    with_faces: bool,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(threshold) = args.ok_threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        return Err(Failure::usage(format!("--ok-threshold {threshold}: expected 0 to 1")));
    }
    let written = crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        let own = place.folder();
        let folder = args.to.as_deref().or(own).unwrap_or(Path::new("report"));
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::broken(format!("cannot write {}: {error}", folder.display())))?;
        let linked = own.is_some_and(|own| is_same_folder(own, folder));
        let settings = place.settings().await.map_err(Failure::broken)?;
        let settings = settings.into_iter().map(|(name, value)| (name, crate::cli::output::plain(&value))).collect();
        let about = About {
            run: place.run.clone(),
            folder: own.and_then(folder_name),
            pictures: Pictures { linked, thumbnails: args.with_faces },
            made_at: now().as_secs(),
            ok_threshold: args.ok_threshold,
            settings,
        };
        let (index, source) = args.index.open(&place)?;
        let bars = Bars::new(!args.place.json);
        let small = bars.count("pictures", 0);
        let thumbnails = |done, total| {
            small.set_length(total);
            small.set_position(done);
        };
        let progress = ReportProgress { indexed: &progress(&bars), thumbnails: &thumbnails };
        let written = write_all(folder, index, &source, &place.objects, about, progress).await;
        bars.clear();
        written.map_err(Failure::broken)
    })?;
    if let Some(note) = unrecorded_note(&written.unrecorded) {
        print_note(note);
    }
    if args.place.json {
        let (unrecorded, _) = written.unrecorded;
        let written =
            serde_json::json!({ "report": written.page, "waiting": written.waiting, "unrecorded": unrecorded });
        print_json(&written)?;
    } else {
        print_text(&format!("{}\n", written.page.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
