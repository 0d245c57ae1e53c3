//! `facemill dataset balance`.

use std::fmt::Write;

use crate::cli::dataset::faces;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::dataset::selection::CapArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::Query;
use crate::dataset::balance::{Balance, BalanceShare, CapEffect, Grouping};
use crate::dataset::page::Order;
use crate::dataset::selection::SelectionError;
use crate::domain::Printable;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Counts only faces that fulfil this query; docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", default_value = "", value_parser = faces::query)]
    query: Query,
    /// Which faces come first where a cap takes only some: a sort of `facemill faces`
    #[arg(long, value_name = "FIELD", default_value = "-p_ok", allow_hyphen_values = true)]
    sort: Order,
    /// How many labels, hosts and sources are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u16,
    #[command(flatten)]
    caps: CapArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub async fn show(args: &Args) -> Result<(), Failure> {
    let target = args.target.open().await?;
    let (mut index, source) = args.index.open(&target)?;
    let bars = Bars::new(!args.target.json);
    let updated = source.update(&mut index, &progress(&bars)).await;
    bars.clear();
    updated.map_err(Failure::broken)?;
    let caps = args.caps.caps();
    if caps.per_identity.is_some() && index.identities_version().map_err(Failure::broken)?.is_none() {
        return Err(Failure::broken(SelectionError::NoIdentities));
    }
    let balance = index.balance(&args.query, index.threshold(), args.sort, caps, args.limit.into());
    if args.target.json { print_json(&balance) } else { print_text(&text(&balance)) }
}

fn text(balance: &Balance) -> String {
    let Balance { faces, left, groupings, caps } = balance;
    let mut text = counted(*faces, "face");
    let _ = match left {
        Some(left) => writeln!(text, ", {left} within the caps ({})", percent(*left, *faces)),
        None => writeln!(text),
    };
    for Grouping { by, values, shares, others } in groupings {
        let _ = writeln!(text, "\n{by}: {values}");
        for BalanceShare { name, faces: count, left: within } in shares.iter().chain(others) {
            let _ = write!(text, "  {:<32} {count:>9} {:>8}", name.printable().to_string(), percent(*count, *faces));
            let _ = match (within, left) {
                (Some(within), Some(left)) => writeln!(text, " {within:>9} {:>8}", percent(*within, *left)),
                _ => writeln!(text),
            };
        }
    }
    for CapEffect { of, limit, left, cut } in caps {
        let share = percent(*left, *faces);
        let _ = write!(text, "\n--max-per-{of} {limit:<6} leaves {left:>9} {share:>8}, and takes from {cut}");
    }
    if !caps.is_empty() {
        text.push('\n');
    }
    text
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}
