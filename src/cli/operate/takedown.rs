//! `facemill takedown`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::archive::refusals::Refusals;
use crate::archive::run_settings::StoredRunSettings;
use crate::archive::takedowns::{Takedown, Takedowns};
use crate::cli::dataset::features::{EmbeddingArgs, FeatureArgs};
use crate::cli::dataset::index::{IndexArgs, index_of_other, thumbnails};
use crate::cli::failure::Failure;
use crate::cli::folders::folder_name;
use crate::cli::output::{counted, plain, print_json, print_note, print_text};
use crate::cli::process::person;
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::{Index, IndexSource};
use crate::domain::clock::now;
use crate::domain::{Id, Printable, RunName};
use crate::pipeline::run_shapes::{CropSettings, DetectSettings};
use crate::report::{self, About, Pictures, ReportProgress};
use crate::services::run_target::{LockedRun, RunTarget};
use crate::services::takedown::{
    Caches, Chosen, PictureMarks, Plan, Removed, Site, SurveySettings, TakedownError, Why, carry_out, plan_takedown,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    named: Named,
    /// Only the named photos, not their copies under other ids; their perceptual hash is not refused
    #[arg(long)]
    only: bool,
    /// Photos of all runs of the installation, not only of this one
    #[arg(long)]
    all_runs: bool,
    /// Removes them; without this flag the command shows what it would remove, and asks on a terminal
    #[arg(long)]
    yes: bool,
    /// Why. It is kept: name no person
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who takes them down [default: this user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    embeddings: EmbeddingArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

/// Which photos. None of them: only takedowns that were interrupted are completed.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Named {
    /// Photos by their ids
    #[arg(long, value_name = "PHOTO_ID", num_args = 1..)]
    photo: Vec<Id>,
    /// All photos of a page, or of a source as the run names it: a URL, a file or a folder
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// All photos with this label: its name or its id
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// The photo at this URL, which is refused also if no run has it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// All photos that show what this picture shows; it is refused also if no run has it
    #[arg(long, value_name = "PICTURE")]
    file: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let bars = Bars::new(!args.target.json);
        let target = args.target.open().await?;
        let takedowns = Takedowns::new(target.objects.clone());
        let pending = takedowns.pending().await.map_err(Failure::broken)?;
        if !pending.is_empty() {
            print_note(format_args!("completing {} that was interrupted", counted(pending.len() as u64, "takedown")));
            remove(args, args.target.open().await?, &pending, &bars).await?;
        }
        let Some(chosen) = args.named.chosen(&args.models, &target).await? else {
            return match pending.is_empty() {
                true => Err(Failure::usage("name the photos: --photo, --source, --label, --url or --file")),
                false => Ok(ExitCode::SUCCESS),
            };
        };
        let settings = SurveySettings {
            chosen,
            copies: !args.only,
            all_runs: args.all_runs,
            by: args.by.clone().unwrap_or_else(person),
            reason: args.reason.clone(),
            at: now().as_secs(),
        };
        let bar = bars.count("looking", 0);
        let progress = |photos| {
            bar.inc_length(photos);
            bar.inc(photos);
        };
        let plan = plan_takedown(&target, &settings, &progress).await;
        bars.clear();
        let plan = plan.map_err(|error| match error {
            TakedownError::NoPhoto { .. } => Failure::findings(error),
            error => Failure::broken(error),
        })?;
        if plan.is_empty() {
            return nothing(args, &target).await;
        }
        if !args.yes && !confirmed(args, &plan)? {
            return Err(Failure::findings("nothing was removed: add --yes to remove it"));
        }
        let id = takedowns.begin(&plan.takedown).await.map_err(Failure::broken)?;
        let removed = remove(args, target, &[(id, plan.takedown.clone())], &bars).await?;
        let done = Done { plan: &plan, removed };
        if args.target.json { print_json(&done) } else { print_text(&text(&done)) }?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Named {
    /// None: nothing is named.
    async fn chosen(&self, models: &ModelArgs, target: &RunTarget) -> Result<Option<Chosen>, Failure> {
        let Self { photo, source, label, url, file } = self;
        if let Some(file) = file {
            return picture(file, models, target).await.map(|marks| Some(Chosen::Picture(marks)));
        }
        let photos = (!photo.is_empty()).then(|| Chosen::Photos(photo.clone()));
        let source = source.clone().map(Chosen::Source);
        let label = label.clone().map(Chosen::Label);
        Ok(photos.or(source).or(label).or(url.clone().map(Chosen::Url)))
    }
}

/// What a picture has in common with photos of the run.
async fn picture(file: &Path, models: &ModelArgs, target: &RunTarget) -> Result<PictureMarks, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::broken(format!("--file {}: {error}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| failed(&error))?;
    let stored = StoredRunSettings::new(target.objects.clone()).read(&target.run).await.map_err(Failure::broken)?;
    let (detect, crop) = match &stored {
        Some(settings) => (DetectSettings::from(settings), CropSettings::from(settings)),
        None => (DetectSettings::default(), CropSettings::default()),
    };
    let models = models.find();
    let marks = tokio::task::spawn_blocking(move || PictureMarks::of(&bytes, &models, detect, crop)).await;
    let marks = marks.map_err(Failure::broken)?.map_err(|error| failed(&error))?;
    if marks.fingerprint.is_none() {
        print_note("the picture shows no face: only photos with the same bytes are found");
    }
    Ok(marks)
}

async fn nothing(args: &Args, target: &RunTarget) -> Result<ExitCode, Failure> {
    let refusals = Refusals::new(target.objects.clone()).urls().await.map_err(Failure::broken)?;
    let message = "nothing is left to take down: no photo matches, or all of them were taken down before";
    match args.target.json {
        true => print_json(&serde_json::json!({ "photos": [], "refused_urls": refusals.len() })),
        false => print_text(&format!("{message}\n")),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the plan, and asks if somebody can answer.
fn confirmed(args: &Args, plan: &Plan) -> Result<bool, Failure> {
    if args.target.json {
        print_json(plan)?;
        return Ok(false);
    }
    print_text(&planned(plan))?;
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let _ = write!(io::stderr(), "remove this for good? Type `yes`: ").and_then(|()| io::stderr().flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::broken(format!("cannot read the answer: {error}")))?;
    Ok(answer.trim() == "yes")
}

/// Carries out takedowns, makes this machine forget what it has derived, and writes the report of a folder again.
async fn remove(
    args: &Args,
    target: RunTarget,
    takedowns: &[(String, Takedown)],
    bars: &Bars,
) -> Result<Removed, Failure> {
    const AGAIN: &str = "run `facemill takedown` again to complete it";
    let again = |error: &dyn std::fmt::Display| Failure::broken(format!("{error}; {AGAIN}"));
    let objects = target.objects.clone();
    let folder = target.folder().map(Path::to_owned);
    let caches = Caches {
        index: Some(args.index.path(&target)?),
        features: Some(args.features.path(folder.as_deref())?),
        embeddings: Some(args.embeddings.path(folder.as_deref())?),
        thumbnails: Some(thumbnails()?),
        ledger: args.target.folder().map(|dir| dir.ledger_file()),
    };
    let settings = target.settings().await.map_err(Failure::broken)?;
    let servers_name = target.servers_name();
    let locked = target.lock().await.map_err(Failure::broken)?;
    let LockedRun { run, ledger, broker, records, .. } = &locked;
    let site = Site { ledger: &**ledger, broker: &**broker, objects: objects.clone(), records: records.as_ref() };
    let source = IndexSource::new(run.clone(), ledger.clone(), objects.clone(), records.clone());
    let mut removed = Removed::default();
    for (id, takedown) in takedowns {
        let bar = bars.count("removing", takedown.photos.len() as u64);
        let carried_out = carry_out(&site, id, takedown, &|photos| bar.inc(photos)).await;
        bar.finish_and_clear();
        removed = carried_out.map_err(|error| again(&error))?;
        if let Some(pending) = &takedown.pending {
            caches.forget(pending, &source).await.map_err(|error| again(&error))?;
            let others: BTreeSet<&RunName> =
                takedown.photos.iter().map(|photo| &photo.run).filter(|of| *of != run).collect();
            for other in others {
                let of_other = Caches { index: index_of_other(&servers_name, other), ..Caches::default() };
                let source = IndexSource::new(other.clone(), ledger.clone(), objects.clone(), records.clone());
                of_other.forget(pending, &source).await.map_err(|error| again(&error))?;
            }
        }
        if let (Some(folder), Some(index)) = (&folder, &caches.index)
            && folder.join("photos.jsonl").is_file()
        {
            let settings = settings.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
            let about = About {
                run: run.clone(),
                folder: folder_name(folder),
                pictures: Pictures { linked: true, thumbnails: false },
                made_at: now().as_secs(),
                ok_threshold: None,
                settings,
            };
            let index = Index::open(index, run).map_err(|error| again(&error))?;
            let written = report::write_all(folder, index, &source, &objects, about, ReportProgress::SILENT).await;
            written.map_err(|error| again(&error))?;
        }
        Takedowns::new(objects.clone()).complete(id).await.map_err(|error| again(&error))?;
    }
    bars.clear();
    Ok(removed)
}

/// What `--json` prints when it is done.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    removed: Removed,
}

/// Photos that are listed.
const LISTED: usize = 20;

fn planned(plan: &Plan) -> String {
    let mut text = String::new();
    let has_several_runs = plan.photos.windows(2).any(|pair| pair[0].run != pair[1].run);
    for photo in plan.photos.iter().take(LISTED) {
        let (id, url) = (photo.photo_id.as_str().printable(), photo.photo_url.printable());
        let label = photo.label.as_deref().unwrap_or("-").printable();
        let why = if photo.why == Why::Named { String::new() } else { format!("  ({})", photo.why.as_str()) };
        let run = if has_several_runs { format!("  run {}", photo.run) } else { String::new() };
        let _ = writeln!(text, "{id:<12} {label:<20} {url}{run}{why}");
    }
    if let Some(more @ 1..) = plan.photos.len().checked_sub(LISTED) {
        let _ = writeln!(text, "and {more} more: --json has all");
    }
    let crops = plan.photos.iter().filter(|photo| photo.has_crop).count() as u64;
    let copies = plan.photos.iter().filter(|photo| photo.why != Why::Named).count() as u64;
    let photos = counted(plan.photos.len() as u64, "photo");
    let _ = writeln!(text, "to remove for good: {photos}, {} of them copies, with {}", copies, counted(crops, "crop"));
    for version in &plan.versions {
        let faces = counted(version.faces, "face");
        let _ = writeln!(text, "version {} of run {} loses {faces}", version.version, version.run);
    }
    let [urls, originals, fingerprints] = plan.refused.map(|count| count as u64);
    let _ = writeln!(
        text,
        "to refuse from now on: {}, {}, {}",
        counted(urls, "URL"),
        counted(originals, "original"),
        counted(fingerprints, "perceptual hash").replace("hashs", "hashes")
    );
    let one_or = |count: u64, one: &'static str, more: &'static str| if count == 1 { one } else { more };
    if plan.elsewhere > 0 {
        let others = counted(plan.elsewhere, "photo");
        let stay = one_or(plan.elsewhere, "shows the same and stays", "show the same and stay");
        let _ = writeln!(text, "{others} of other runs {stay}: see --all-runs");
    }
    if plan.kept_originals > 0 {
        let originals = counted(plan.kept_originals, "original");
        let stay = one_or(plan.kept_originals, "stays", "stay");
        let _ = writeln!(text, "{originals} {stay}, because photos that are not meant have the same");
    }
    if plan.waiting > 0 {
        let waiting = counted(plan.waiting, "photo");
        let _ = writeln!(text, "not ended: {waiting}; pause the workers first (`facemill pause`)");
    }
    text
}

fn text(done: &Done<'_>) -> String {
    let Removed { photos, originals, crops, verdicts, messages, versions } = &done.removed;
    let mut text = format!(
        "removed: {}, {}, {}, {}, {}\n",
        counted(*photos, "photo"),
        counted(*originals, "original"),
        counted(*crops, "crop"),
        counted(*verdicts, "verdict"),
        counted(*messages, "message")
    );
    for header in versions {
        let (name, run, faces) = (&header.name, &header.run, header.counts.faces);
        let _ = writeln!(
            text,
            "version {name} of run {run} has {} now, and the digest {}",
            counted(faces, "face"),
            header.digest
        );
    }
    let _ = writeln!(text, "not reached: backups, exports that were written, traces and logs (docs/takedown.md)");
    text
}
