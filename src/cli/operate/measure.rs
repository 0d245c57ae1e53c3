//! `facemill measure`.

use std::fmt::Write;
use std::num::NonZero;
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::Ending;
use crate::services::measure::{Measure, Measured};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Faces that are measured at a time [default: the processors of the machine]
    #[arg(long, env = "FACEMILL_CORES", value_name = "N")]
    cores: Option<NonZero<usize>>,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let bars = Bars::new(!args.place.json);
    let _telemetry = crate::cli::process::observe("facemill=warn", &bars, "facemill-measure", false)?;
    let measured = crate::cli::process::block_on(async {
        let target = args.place.open().await?;
        let objects = target.objects.clone();
        let locked = target.lock().await.map_err(Failure::broken)?;
        let counts = locked.ledger.counts(&locked.run).await.map_err(Failure::broken)?;
        let bar = bars.count("measure", counts.ended.get(&Ending::Predicted).copied().unwrap_or(0));
        let processors = || std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let measure = Measure {
            run: &locked.run,
            ledger: &*locked.ledger,
            objects,
            records: locked.records.as_ref(),
            cores: args.cores.unwrap_or_else(processors),
        };
        let measured = measure.run(&|photos| bar.inc(photos)).await;
        bar.finish_and_clear();
        measured.map_err(|error| Failure::broken(format!("{error}; run the same command again to continue")))
    })?;
    if args.place.json { print_json(&measured) } else { print_text(&text(&measured)) }?;
    match measured.unreadable {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::findings(format!("{} cannot be measured", counted(count, "face")))),
    }
}

fn text(measured: &Measured) -> String {
    let Measured { measured, known, without_original, moved, unreadable, reasons } = measured;
    let mut text = format!("{} measured, {known} known before\n", counted(*measured, "face"));
    if *without_original > 0 {
        let _ = writeln!(
            text,
            "{without_original} of them have no JPEG quality: their originals are missing or have changed"
        );
    }
    if *moved > 0 {
        let _ = writeln!(
            text,
            "{} moved on meanwhile: run the command again when they have ended",
            counted(*moved, "photo")
        );
    }
    for (id, reason) in reasons {
        let _ = writeln!(text, "photo {id}: {reason}");
    }
    if let Some(more @ 1..) = unreadable.checked_sub(reasons.len() as u64) {
        let _ = writeln!(text, "and {more} more");
    }
    text
}
