//! `facemill recrop`.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use super::{Summary, process_and_report, worker_settings};
use crate::archive::records::Records;
use crate::archive::run_settings::{RunSettings, StoredRunSettings};
use crate::cli::again::this_command;
use crate::cli::failure::Failure;
use crate::cli::folders::is_same_folder;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::{self, ModelArgs, NewFaceArgs};
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::RunName;
use crate::net::Rules;
use crate::objects::Objects;
use crate::pipeline::local::{Finish, RunDir};
use crate::pipeline::originals::DECODE_MEMORY;
use crate::pipeline::run_shapes::{GivenSettings, landmark_hashes};
use crate::pipeline::stages::StageSettings;
use crate::pipeline::stored_photos::StoredAccess;
use crate::services::kept_originals::KeptOriginals;
use crate::services::local_run::LocalRun;
use crate::services::recrop::{Destination, LeftOut, Recrop, Recropped, Source};
use crate::services::run_target::RunTarget;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The new run: a folder for a run in a folder, otherwise a name in the installation. The same command, also
    /// without the flags of the faces, continues after an interruption and takes what the first run has gained since
    #[arg(long = "as", value_name = "DIR|NAME")]
    new: String,
    #[command(flatten)]
    faces: NewFaceArgs,
    /// Copies the originals into the new folder; otherwise it links to those of the first one
    #[arg(long)]
    copy: bool,
    /// Photos that each stage processes at a time, for a run in a folder [default: the cores of this machine]
    #[arg(long, env = "FACEMILL_CORES", value_name = "N", help_heading = "Work")]
    cores: Option<usize>,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let bars = Bars::new(!args.place.json);
    let _telemetry = crate::cli::process::observe("facemill=warn", &bars, "facemill-recrop", false)?;
    crate::cli::process::block_on(async {
        match args.place.folder() {
            Some(first) => in_folder(args, &first, &bars).await,
            None => in_installation(args, &bars).await,
        }
    })
}

/// The settings of the new run: what is given, and the rest as the new run has it, or else the first one.
async fn new_settings(
    args: &Args,
    first: &RunSettings,
    new: &RunName,
    objects: Arc<dyn Objects>,
) -> Result<GivenSettings, Failure> {
    let known = StoredRunSettings::new(objects).read(new).await.map_err(Failure::broken)?;
    args.faces.given(known.as_ref().unwrap_or(first))
}

/// The settings of the first run. A run without settings has no crops.
async fn first_settings(first: &RunTarget) -> Result<RunSettings, Failure> {
    let stored = StoredRunSettings::new(first.objects.clone()).read(&first.run).await.map_err(Failure::broken)?;
    stored.ok_or_else(|| Failure::broken(format!("run {} has no settings: no stage has worked on it yet", first.run)))
}

async fn in_folder(args: &Args, first: &RunDir, bars: &Bars) -> Result<ExitCode, Failure> {
    let home = RunDir::at(&args.new);
    if is_same_folder(first.folder(), home.folder()) {
        return Err(Failure::usage(format!("--as {} is the folder of the first run: name another one", args.new)));
    }
    let opened = RunTarget::of_folder(first.clone()).await.map_err(Failure::broken)?;
    let from_settings = first_settings(&opened).await?;
    let given = new_settings(args, &from_settings, &RunName::default(), Arc::new(home.objects())).await?;
    let cores = args.cores.unwrap_or_else(flags::cores);
    if let Some(fault) = flags::out_of_range("cores", cores as u64, 1, 1024) {
        return Err(Failure::usage(fault));
    }
    let settings = StageSettings {
        models: args.models.find(),
        cores,
        decode_memory: DECODE_MEMORY,
        // Nothing is fetched, except photos that somebody has requeued in the new run.
        rules: Rules::default(),
        stored_access: StoredAccess { local_files: true, s3: None },
        host_limiter: None,
        given,
    };
    let local = LocalRun::open(&home, settings).await.map_err(Failure::broken)?;
    let (from, to) = (first.objects(), local.dir.objects.clone());
    let recrop = Recrop {
        originals: match args.copy {
            true => KeptOriginals::Copied { from, to },
            false => KeptOriginals::Linked { from, to },
        },
        from: source(&opened, &from_settings),
        to: Destination {
            run: &local.run,
            ledger: &local.dir.ledger,
            broker: &local.dir.broker,
            objects: Arc::new(local.dir.objects.clone()),
            records: None,
            settings: &local.settings,
        },
    };
    let recropped = take(&recrop, &opened, bars).await?;
    let finished = process_and_report(&local, &home, worker_settings(), args.place.json, bars).await?;
    if !args.place.json {
        print_text(&text(&recropped))?;
    }
    let again = this_command();
    let summary = Summary { source: ("recropped", serde_json::json!(recropped)), finish: &finished, again: &again };
    summary.print(args.place.json)?;
    match finished.finish {
        Finish::Complete => check(&recropped),
        Finish::Interrupted { .. } => Ok(finished.interrupted),
    }
}

async fn in_installation(args: &Args, bars: &Bars) -> Result<ExitCode, Failure> {
    let run: RunName = args.new.parse().map_err(|error| Failure::usage(format!("--as: {error}")))?;
    if args.copy {
        return Err(Failure::usage("--copy is for runs in folders: the runs of an installation share the originals"));
    }
    let first = args.place.open().await?;
    if run == first.run {
        return Err(Failure::usage(format!("--as {run} is the first run: name another one")));
    }
    let from_settings = first_settings(&first).await?;
    let servers = args.place.servers.clients()?;
    let objects: Arc<dyn Objects> = Arc::new(servers.objects.clone());
    let given = new_settings(args, &from_settings, &run, objects.clone()).await?;
    let to_settings =
        given.agree(&run, &landmark_hashes(args.models.find()), objects.clone()).await.map_err(Failure::broken)?;
    let records = Records::new(objects.clone());
    let recrop = Recrop {
        originals: KeptOriginals::Shared(objects.clone()),
        from: source(&first, &from_settings),
        to: Destination {
            run: &run,
            ledger: &*servers.ledger,
            broker: &servers.broker,
            objects,
            records: Some(&records),
            settings: &to_settings,
        },
    };
    let recropped = take(&recrop, &first, bars).await?;
    match args.place.json {
        true => print_json(&recropped)?,
        false => print_text(&format!("run {run}: {}", text(&recropped)))?,
    }
    check(&recropped)
}

fn source<'a>(first: &'a RunTarget, settings: &'a RunSettings) -> Source<'a> {
    Source {
        run: &first.run,
        ledger: &*first.ledger,
        objects: first.objects.clone(),
        records: first.records.as_ref(),
        settings,
    }
}

async fn take(recrop: &Recrop<'_>, first: &RunTarget, bars: &Bars) -> Result<Recropped, Failure> {
    let counts = first.ledger.counts(&first.run).await.map_err(Failure::broken)?;
    let bar = bars.count("recrop", counts.candidates);
    let recropped = recrop.run(&|photos| bar.inc(photos)).await;
    bar.finish_and_clear();
    recropped.map_err(|error| Failure::broken(format!("{error}; run the same command again to continue")))
}

/// Also where one is named by a link, or does not exist yet.
fn text(recropped: &Recropped) -> String {
    let Recropped { at_detect, at_crop, ended, known, left_out, verdicts, .. } = recropped;
    let mut text = format!(
        "{} enqueued, {at_crop} of them with known landmarks; {ended} ended as before, {known} known before\n",
        counted(at_detect + at_crop, "photo")
    );
    if *verdicts > 0 {
        let _ = writeln!(text, "{} taken over; each counts where the crop is the same", counted(*verdicts, "verdict"));
    }
    let LeftOut { in_progress, failed, without_original, unrecorded, in_conflict } = *left_out;
    let reasons = [
        (in_progress, "not ended in the first run: run the command again when they have"),
        (failed, "failed without an original: `facemill retry` tries them again in the first run"),
        (without_original, "whose original is no longer there"),
        (unrecorded, "without a record in the first run: run `facemill audit`"),
        (in_conflict, "whose ids other photos have in the new run"),
    ];
    for (count, reason) in reasons.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(text, "left out: {} {reason}", counted(count, "photo"));
    }
    text
}

fn check(recropped: &Recropped) -> Result<ExitCode, Failure> {
    match recropped.left_out.findings() {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::findings(format!("{} cannot be cut anew", counted(count, "photo")))),
    }
}
