//! `facemill run`.

pub mod candidates;
pub mod demo;
pub mod recrop;

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use crate::archive::run_folders::RunFolder;
use crate::cli::again::this_command;
use crate::cli::dataset::index::progress;
use crate::cli::failure::Failure;
use crate::cli::folders::folder_name;
use crate::cli::output::{check_conflicts, counted, first_lines, named, plain, print_json, print_text};
use crate::cli::process::Signals;
use crate::cli::progress::{Bars, Board};
use crate::cli::settings::process_args::ProcessArgs;
use crate::cli::settings::reading::ReadingArgs;
use crate::cli::settings::servers::S3Args;
use crate::cli::settings::source_arg::SourceArg;
use crate::dataset::Index;
use crate::domain::clock::now;
use crate::domain::{Candidate, Printable};
use crate::ledger::Ledger;
use crate::objects::Objects;
use crate::pipeline::event::{Observer, PhotoEvent};
use crate::pipeline::host_faults::HostFaults;
use crate::pipeline::local::{Finish, RunDir};
use crate::pipeline::stored_photos::StoredAccess;
use crate::pipeline::{stages, worker};
use crate::report::{self, About, Pictures, ReportProgress, Written};
use crate::services::local_run::LocalRun;
use crate::services::missing_faces;
use crate::source::Input;
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A dump, a list of URLs or a table of photos, of any kind and compression: a file, s3://BUCKET/KEY, or `-` for
    /// standard input; or a folder with photos: a path, or s3://BUCKET/PREFIX/
    #[arg(value_parser = SourceArg::parser(), value_name = "SOURCE")]
    source: SourceArg,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Copies the photos of a folder into the output; otherwise the output links to them
    #[arg(long, help_heading = "Source")]
    copy: bool,
    #[command(flatten)]
    s3: S3Args,
    #[command(flatten)]
    pub process: ProcessArgs,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(Some(&args.source.to_string()))?;
    let folder = args.source.run_folder(args.copy)?;
    let mut settings = args.process.settings()?;
    // A fault of these settings matters only to a photo in S3.
    settings.stored_access = StoredAccess { local_files: true, s3: args.s3.service().ok() };
    let (bars, _telemetry) = begin(&args.process)?;
    crate::cli::process::block_on(async {
        let again = match args.source {
            SourceArg::Here(Input::Stdin) => format!("{}   # with the same standard input", this_command()),
            _ => this_command(),
        };
        let s3 = || args.s3.service().map_err(Failure::broken);
        let candidates = args.source.clone().candidates(s3, options, &bars).await?;
        execute(Photos { candidates, folder }, settings, &args.process, &bars, &again).await
    })
}

/// What a run starts from.
pub struct Photos {
    pub candidates: Vec<Candidate>,
    /// The folder that has them, if they are stored already.
    pub folder: Option<RunFolder>,
}

/// Starts logging, tracing and progress bars. Keep both values until the command ends.
pub fn begin(process: &ProcessArgs) -> Result<(Bars, Telemetry), Failure> {
    let bars = Bars::new(!process.json);
    let level = match process.verbose {
        0 => "facemill=warn",
        1 => "facemill=info",
        _ => "facemill=debug",
    };
    let telemetry = crate::cli::process::observe(level, &bars, "facemill", false)?;
    Ok((bars, telemetry))
}

/// Runs all stages on the photos. `again`: the command that continues after an interruption.
pub async fn execute(
    Photos { mut candidates, folder }: Photos,
    settings: stages::StageSettings,
    process: &ProcessArgs,
    bars: &Bars,
    again: &str,
) -> Result<ExitCode, Failure> {
    candidates.truncate(process.limit.unwrap_or(usize::MAX));
    let home = RunDir::at(&process.out);
    let local = LocalRun::open(&home, settings).await.map_err(Failure::broken)?;
    if let Some(folder) = folder {
        local.add_folder(&folder).await.map_err(Failure::broken)?;
    }

    check_faces(&local, process, bars).await?;
    let bar = bars.count("enqueue", candidates.len() as u64);
    let enqueued = local.enqueue(&candidates, &|photos| bar.inc(photos)).await;
    bar.finish_and_clear();
    let enqueued = enqueued.map_err(Failure::broken)?;
    drop(candidates);
    for refusal in &enqueued.refused {
        tracing::warn!(photo = %refusal.photo_id, "refused: {}", refusal.reason);
    }
    for conflict in &enqueued.conflicts {
        tracing::warn!("{conflict}");
    }

    if enqueued.taken_down > 0 {
        tracing::warn!("not taken: {}, taken down before", counted(enqueued.taken_down, "photo"));
    }

    let worker_settings = worker::WorkerSettings {
        attempts: process.stages.attempts,
        waits: process.stages.waits.clone(),
        ..worker_settings()
    };
    let finish = process_and_report(&local, &home, worker_settings, process.json, bars).await?;
    let summary = Summary { source: ("enqueued", serde_json::json!(enqueued)), finish: &finish, again };
    summary.print(process.json)?;
    match finish.finish {
        Finish::Complete => check_conflicts(enqueued.in_conflict),
        Finish::Interrupted { .. } => Ok(finish.interrupted),
    }
}

/// Most photos that are named.
const NAMED: usize = 5;

/// Makes deleted faces again, or says that there are some.
async fn check_faces(local: &LocalRun, process: &ProcessArgs, bars: &Bars) -> Result<(), Failure> {
    let missing = missing_faces::find(local).await.map_err(Failure::broken)?;
    if missing.is_empty() {
        return Ok(());
    }
    let faces = counted(missing.len() as u64, "face");
    if !process.remake_faces {
        let first: Vec<String> = missing.iter().take(NAMED).map(|photo| photo.candidate.photo_id.to_string()).collect();
        tracing::warn!(
            "{faces} of earlier photos missing in {}/faces (photo {}): --remake-faces makes them again from the \
             originals; `facemill takedown` removes photos for good",
            process.out.display(),
            first.join(", ") + if missing.len() > NAMED { ", ..." } else { "" },
        );
        return Ok(());
    }
    let bar = bars.count("remake", missing.len() as u64);
    let faults = missing_faces::remake(local, &missing, &|photos| bar.inc(photos)).await;
    bar.finish_and_clear();
    for (photo, reason) in &faults {
        tracing::warn!(%photo, "the face cannot be made again: {reason}");
    }
    tracing::warn!("{} of {faces} made again", missing.len() - faults.len());
    Ok(())
}

/// The settings of workers on a laptop, where most crashes are a user who kills the process.
fn worker_settings() -> worker::WorkerSettings {
    worker::WorkerSettings { crash_limit: 5, ..worker::WorkerSettings::default() }
}

/// What processing a run has come to.
struct Finished {
    finish: Finish,
    written: Written,
    /// The photos that ended because of each fault of a host.
    host_faults: Vec<(String, u64)>,
    /// The exit code of a run that a signal has interrupted.
    interrupted: ExitCode,
}

/// Processes the photos of a run and writes its report.
async fn process_and_report(
    local: &LocalRun,
    home: &RunDir,
    settings: worker::WorkerSettings,
    json: bool,
    bars: &Bars,
) -> Result<Finished, Failure> {
    let ledger = &local.dir.ledger;
    let observer: Arc<dyn Observer> = match json {
        true => Arc::new(Lines),
        false => Arc::new(Board::new(bars, &ledger.counts(&local.run).await.map_err(Failure::broken)?)),
    };
    let host_faults = Arc::<HostFaults>::default();
    let signals = Signals::catch();
    let finish = local.process(settings, vec![observer, host_faults.clone()], signals.shutdown.clone()).await;
    bars.clear();
    let finish = finish.map_err(Failure::broken)?;

    let about = About {
        run: local.run.clone(),
        folder: folder_name(home.folder()),
        pictures: Pictures { linked: true, thumbnails: false },
        made_at: now().as_secs(),
        ok_threshold: None,
        settings: local.settings.by_name().into_iter().map(|(name, value)| (name, plain(&value))).collect(),
    };
    let index = Index::open(&home.index_file(), &local.run).map_err(Failure::broken)?;
    let source = local.index_source();
    let written = report::write_all(
        home.folder(),
        index,
        &source,
        &(Arc::new(local.dir.objects.clone()) as Arc<dyn Objects>),
        about,
        ReportProgress { indexed: &progress(bars), ..ReportProgress::SILENT },
    )
    .await;
    bars.clear();
    Ok(Finished {
        finish,
        written: written.map_err(Failure::broken)?,
        host_faults: host_faults.ended(),
        interrupted: signals.exit_code(),
    })
}

/// Prints every event as a line of JSON.
struct Lines;

impl Observer for Lines {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        // The reader may have closed the pipe; the run continues.
        let _ = writeln!(std::io::stdout().lock(), "{}", event.json());
    }
}

struct Summary<'a> {
    /// The name and the value of what the photos came from.
    source: (&'a str, serde_json::Value),
    finish: &'a Finished,
    /// The command that continues after an interruption.
    again: &'a str,
}

impl Summary<'_> {
    fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return print_json(&self.json());
        }
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        print_text(&text)
    }

    fn json(&self) -> serde_json::Value {
        let Finished { finish, written, host_faults, .. } = self.finish;
        let report::Funnel { candidates, downloaded, faces, ok } = written.funnel;
        let host_fault = |(fault, photos): &(String, u64)| serde_json::json!({ "fault": fault, "photos": photos });
        let (name, source) = &self.source;
        let mut summary = serde_json::json!({
            "what": "summary",
            "candidates": candidates,
            "downloaded": downloaded,
            "faces": faces,
            "ok": ok,
            "waiting": written.waiting,
            "host_faults": host_faults.iter().map(host_fault).collect::<Vec<_>>(),
            "complete": *finish == Finish::Complete,
            "report": written.page,
        });
        summary[*name] = source.clone();
        if let Finish::Interrupted { .. } = finish {
            summary["to_continue"] = self.again.into();
        }
        summary
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Finished { finish, written, host_faults, .. } = self.finish;
        let report::Funnel { candidates, downloaded, faces, ok } = written.funnel;
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        writeln!(out, "{candidates:>9} {}", named(candidates, "candidate"))?;
        writeln!(out, "{downloaded:>9} downloaded {:>6.1} %", share(downloaded, candidates))?;
        writeln!(out, "{faces:>9} {:<10} {:>6.1} % of those", named(faces, "face"), share(faces, downloaded))?;
        writeln!(out, "{ok:>9} OK         {:>6.1} % of those", share(ok, faces))?;
        let host_fault = |(fault, photos): &(String, u64)| {
            format!("not fetched: {}: {}\n", counted(*photos, "photo"), fault.printable())
        };
        out.write_str(&first_lines(host_faults.iter().map(host_fault), "hosts"))?;
        if let Finish::Interrupted { waiting } = finish {
            writeln!(out, "interrupted, {} left; to continue: {}", counted(*waiting, "photo"), self.again)?;
        }
        writeln!(out, "report: {}", written.page.display())
    }
}
