//! `facemill run`.

pub mod candidates;
pub mod demo;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::dataset::index::progress;
use crate::cli::failure::Failure;
use crate::cli::output::{check_conflicts, plain};
use crate::cli::progress::{Bars, Board};
use crate::cli::settings::process_args::ProcessArgs;
use crate::cli::settings::reading::ReadingArgs;
use crate::dataset::Index;
use crate::domain::Candidate;
use crate::domain::clock::now;
use crate::ledger::Ledger;
use crate::pipeline::event::{Observer, PhotoEvent};
use crate::pipeline::local::{Finish, RunDir};
use crate::pipeline::producer::Enqueued;
use crate::pipeline::{stages, worker};
use crate::report::{self, About, Written};
use crate::services::local_run::LocalRun;
use crate::source::{self, Input};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, of any kind and compression, or a table of candidates; `-` is standard input
    dump: Input,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(Some(&args.dump.to_string()))?;
    let settings = args.process.settings()?;
    let (bars, _telemetry) = begin(&args.process)?;
    crate::cli::process::block_on(async {
        let reading = bars.reading();
        let dump = args.dump.clone();
        let read = tokio::task::spawn_blocking(move || {
            let candidates = source::candidates(&dump, &options, &mut |p| reading.show(p));
            reading.finish();
            candidates
        });
        let again = format!("facemill run {} --out {}", args.dump, args.process.out.display());
        let candidates = read.await.map_err(Failure::broken)?.map_err(Failure::broken)?;
        execute(candidates, settings, &args.process, &bars, &again).await
    })
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

/// Runs all stages on the candidates. `again`: the command that continues after an interruption.
pub async fn execute(
    mut candidates: Vec<Candidate>,
    settings: stages::StageSettings,
    process: &ProcessArgs,
    bars: &Bars,
    again: &str,
) -> Result<ExitCode, Failure> {
    candidates.truncate(process.limit.unwrap_or(usize::MAX));
    let home = RunDir::at(&process.out);
    let local = LocalRun::open(&home, settings).await.map_err(Failure::broken)?;
    let ledger = &local.dir.ledger;

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

    let observer: Arc<dyn Observer> = match process.json {
        true => Arc::new(Lines),
        false => Arc::new(Board::new(bars, &ledger.counts(&local.run).await.map_err(Failure::broken)?)),
    };
    let worker_settings = worker::WorkerSettings {
        attempts: process.stages.attempts,
        waits: process.stages.waits.clone(),
        // On a laptop, most crashes are a user who kills the process.
        crash_limit: 5,
        ..worker::WorkerSettings::default()
    };
    let shutdown = CancellationToken::new();
    let signals = tokio::spawn(crate::cli::process::signals(shutdown.clone()));
    let finish = local.process(worker_settings, vec![observer], shutdown).await;
    signals.abort();
    bars.clear();
    let finish = finish.map_err(Failure::broken)?;

    let about = About {
        run: local.run.clone(),
        made_at: now().as_secs(),
        ok_threshold: None,
        settings: local.settings.by_name().into_iter().map(|(name, value)| (name, plain(&value))).collect(),
    };
    let index = Index::open(&home.index_file(), &local.run).map_err(Failure::broken)?;
    let source = local.index_source();
    let written = report::write_all(&process.out, index, &source, about, &progress(bars)).await;
    bars.clear();
    let written = written.map_err(Failure::broken)?;
    let summary = Summary { enqueued: &enqueued, written: &written, finish, again };
    summary.print(process.json).map_err(|error| Failure::broken(format!("cannot print the summary: {error}")))?;
    match finish {
        Finish::Complete => check_conflicts(enqueued.in_conflict),
        Finish::Interrupted { .. } => Ok(ExitCode::from(crate::cli::process::INTERRUPTED)),
    }
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
    enqueued: &'a Enqueued,
    written: &'a Written,
    finish: Finish,
    again: &'a str,
}

impl Summary<'_> {
    fn print(&self, json: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let report::Funnel { candidates, downloaded, faces, ok } = self.written.funnel;
        if json {
            let summary = serde_json::json!({
                "what": "summary",
                "enqueued": self.enqueued,
                "candidates": candidates,
                "downloaded": downloaded,
                "faces": faces,
                "ok": ok,
                "waiting": self.written.waiting,
                "complete": self.finish == Finish::Complete,
                "report": self.written.page,
            });
            return writeln!(out, "{summary}");
        }
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        writeln!(out, "{candidates:>9} candidates")?;
        writeln!(out, "{downloaded:>9} downloaded {:>6.1} %", share(downloaded, candidates))?;
        writeln!(out, "{faces:>9} faces      {:>6.1} % of those", share(faces, downloaded))?;
        writeln!(out, "{ok:>9} OK         {:>6.1} % of those", share(ok, faces))?;
        if let Finish::Interrupted { waiting } = self.finish {
            writeln!(out, "interrupted, {waiting} photos still wait; to continue: {}", self.again)?;
        }
        writeln!(out, "report: {}", self.written.page.display())
    }
}
