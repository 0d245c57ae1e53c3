//! `facemill simulate`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::capacity::{self, Bottleneck, Forecast, Measured, Plan, StagePool};
use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::host_entry::{MAX_PER_HOST, MAX_SPACING};
use crate::domain::StageName;

/// From docs/scaling.md, measured on one core with `--search guided`. The time of a fetch depends on the host: half a
/// second is a distant one.
const USUAL: [Measured; 4] = [
    Measured { seconds: 0.5, overhead: 0.005, cpu: 0.002, passed: 0.67 },
    Measured { seconds: 0.026, overhead: 0.005, cpu: 0.026, passed: 0.80 },
    Measured { seconds: 0.011, overhead: 0.005, cpu: 0.011, passed: 0.95 },
    Measured { seconds: 0.009, overhead: 0.005, cpu: 0.009, passed: 0.0 },
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Photos of the collection
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    photos: u64,
    /// A file with a worker's /metrics, for measured times and shares; repeat it for several workers
    /// [default: as in docs/scaling.md]
    #[arg(long, value_name = "FILE")]
    metrics: Vec<PathBuf>,
    /// Workers of a stage; repeat it for several stages [default: 1 of each]
    #[arg(long, value_name = "STAGE=N", value_parser = count)]
    workers: Vec<(StageName, u64)>,
    /// Photos that one worker of a stage processes at a time; repeat it for several stages [default: fetch=64, else 1]
    #[arg(long, value_name = "STAGE=N", value_parser = count)]
    slots: Vec<(StageName, u64)>,
    /// Computes the workers that are needed to finish within this many hours
    #[arg(long, value_name = "HOURS", conflicts_with = "workers", value_parser = positive)]
    within: Option<f64>,
    /// Milliseconds of a worker for each photo beside the stage: ledger, broker, acknowledgement [default: from
    /// --metrics, else 5]
    #[arg(long, value_name = "MILLISECONDS", value_parser = positive)]
    overhead: Option<f64>,
    /// Cores that all workers share on one machine [default: one for each slot]
    #[arg(long, value_name = "N", value_parser = positive)]
    cores: Option<f64>,
    /// Share of the photos that are on the one host with the most of them: it is asked only as often as is host_rate
    #[arg(long, value_name = "SHARE", value_parser = positive)]
    largest_host: Option<f64>,
    /// Requests to one host at a time, from all workers together
    #[arg(
        long,
        env = "FACEMILL_PER_HOST",
        default_value_t = 4,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=MAX_PER_HOST),
        help_heading = "Fetching"
    )]
    per_host: u64,
    /// Milliseconds from the start of one request to a host to the start of the next
    #[arg(
        long,
        env = "FACEMILL_SPACING",
        default_value_t = 50,
        value_name = "MILLISECONDS",
        value_parser = clap::value_parser!(u64).range(..=MAX_SPACING),
        help_heading = "Fetching"
    )]
    spacing: u64,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

fn count(text: &str) -> Result<(StageName, u64), String> {
    let (stage, number) = text.split_once('=').ok_or("expected STAGE=N, such as detect=20")?;
    let stage = stage.parse::<StageName>().map_err(|error| error.to_string())?;
    match number.parse() {
        Ok(number @ 1..=1_000_000) => Ok((stage, number)),
        _ => Err(format!("`{number}`: expected 1 to 1000000")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".into()),
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut plan = args.plan()?;
    if let Some(hours) = args.within {
        plan = plan.pools_for(hours * 3600.0).ok_or_else(|| {
            let limit = Plan { host_rate: f64::INFINITY, ..plan.clone() }.pools_for(hours * 3600.0);
            Failure::findings(match limit {
                Some(_) => {
                    "no number of workers is enough: the largest host alone takes longer at this --per-host and --spacing"
                }
                None => "no number of workers is enough: the cores or the last photo alone take longer",
            })
        })?;
    }
    let predicted = plan.predict();
    if args.json { print_json(&as_json(&plan, &predicted)) } else { print_text(&text(&plan, &predicted)) }?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn plan(&self) -> Result<Plan, Failure> {
        let mut measured = match self.metrics.as_slice() {
            [] => USUAL,
            files => {
                let read = |file: &PathBuf| {
                    std::fs::read_to_string(file)
                        .map_err(|error| Failure::broken(format!("{}: {error}", file.display())))
                };
                let texts = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
                capacity::measured(&texts).map_err(Failure::broken)?
            }
        };
        let of = |list: &[(StageName, u64)], stage, usual| {
            list.iter().rev().find(|(name, _)| *name == stage).map_or(usual, |(_, number)| *number)
        };
        if let Some(overhead) = self.overhead {
            measured.iter_mut().for_each(|measured| measured.overhead = overhead / 1000.0);
        }
        let stages = StageName::ALL.map(|stage| StagePool {
            measured: measured[stage as usize],
            workers: of(&self.workers, stage, 1),
            slots: of(&self.slots, stage, if stage == StageName::Fetch { 64 } else { 1 }),
        });
        // Without spacing the division gives infinity.
        let one_host = (self.per_host as f64 / measured[0].seconds).min(1000.0 / self.spacing as f64);
        Ok(Plan {
            photos: self.photos as f64,
            stages,
            host_rate: self.largest_host.map_or(f64::INFINITY, |share| one_host / share.min(1.0)),
            cores: self.cores.unwrap_or(f64::INFINITY),
        })
    }
}

fn as_json(plan: &Plan, predicted: &Forecast) -> serde_json::Value {
    let stage = |name: StageName| {
        let (k, pools) = (name as usize, plan.stages[name as usize]);
        json!({
            "stage": name,
            "photos": predicted.photos[k].round() as u64,
            "seconds_a_photo": pools.slot_seconds(),
            "workers": pools.workers,
            "slots": pools.slots,
            "busy": predicted.busy[k],
        })
    };
    json!({
        "photos": plan.photos as u64,
        "seconds": predicted.seconds,
        "cpu_seconds": predicted.cpu_seconds,
        "bottleneck": name_of(predicted.bottleneck),
        "stages": StageName::ALL.map(stage),
    })
}

fn text(plan: &Plan, predicted: &Forecast) -> String {
    let mut text = String::from("stage         photos  a photo takes  workers in flight  busy\n");
    for name in StageName::ALL {
        let (k, pools) = (name as usize, plan.stages[name as usize]);
        let milliseconds = pools.slot_seconds() * 1000.0;
        let (photos, busy) = (predicted.photos[k].round(), predicted.busy[k] * 100.0);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<9}{photos:>11}{milliseconds:>12.1} ms{:>9}{:>9}{busy:>5.0} %",
            name.as_str(),
            pools.workers,
            pools.slots
        );
    }
    let limit = match predicted.bottleneck {
        Bottleneck::Stage(stage) => format!("limited by {stage}: more workers there make it faster"),
        Bottleneck::Hosts => "limited by the largest host: more workers do not make it faster".into(),
        Bottleneck::Cores => "limited by the cores: more workers do not make it faster".into(),
    };
    let cpu = match predicted.cpu_seconds {
        seconds @ ..3600.0 => format!("{} of CPU", duration(seconds)),
        seconds => format!("{:.1} core hours", seconds / 3600.0),
    };
    let _ = writeln!(text, "{} until the last photo, {limit}", duration(predicted.seconds));
    let _ = writeln!(text, "{cpu}");
    text
}

fn name_of(bottleneck: Bottleneck) -> &'static str {
    match bottleneck {
        Bottleneck::Stage(stage) => stage.as_str(),
        Bottleneck::Hosts => "hosts",
        Bottleneck::Cores => "cores",
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        120.0..7200.0 => format!("{:.0} min", seconds / 60.0),
        7200.0..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_name_a_stage() {
        assert_eq!(count("detect=20"), Ok((StageName::Detect, 20)));
        for bad in ["detect", "detect=0", "detect=-1", "paint=2", "=2", "detect=1000001"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "inf", "NaN", "x"] {
            assert!(positive(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        let texts: Vec<String> = [3.2, 300.0, 9000.0, 500_000.0].map(duration).into();
        assert_eq!(texts, ["3 s", "5 min", "2.5 h", "5.8 days"]);
    }
}
