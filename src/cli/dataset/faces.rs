//! `facemill faces`.

use std::process::ExitCode;

use crate::cli::dataset::index::{IndexArgs, progress, unrecorded_note};
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_note, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::export_filter::{EXPORT_FILTER, export_filter};
use crate::dataset::face::FIELDS;
use crate::dataset::page::Order;
use crate::dataset::{Cursor, Face, Index, IndexError, Query};
use crate::domain::{Printable, Verdict};
use crate::objects::ObjectKey;

/// Photos without a record that are named.
const NAMED: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Lists only faces that fulfil this query: "p_ok>=0.9 and size>=512"; docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", default_value = "", value_parser = query)]
    query: Query,
    /// id, updated, published, uncertainty, or a number of the query language; -p_ok sorts in descending order
    #[arg(long, value_name = "FIELD", default_value = "-p_ok", allow_hyphen_values = true)]
    sort: Order,
    /// Faces on a page
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// Continues where an earlier page ended
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Prints only how many faces fulfil the query
    #[arg(long, conflicts_with = "after")]
    count: bool,
    /// The P(OK) from which a face is `ok` [default: the run's, see `facemill models`]
    #[arg(long, value_name = "P", value_parser = share)]
    threshold: Option<f64>,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub fn query(text: &str) -> Result<Query, crate::dataset::QueryError> {
    Query::parse(text, FIELDS)
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "expected a number from 0 to 1".into())
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let target = args.target.open().await?;
        let (mut index, source) = args.index.open(&target)?;
        let bars = Bars::new(true);
        let updated = source.update(&mut index, &progress(&bars)).await;
        bars.clear();
        updated.map_err(Failure::broken)?;
        let threshold = args.threshold.unwrap_or(index.threshold());
        let unrecorded = index.unrecorded(NAMED).map_err(Failure::broken)?;
        if let Some(note) = unrecorded_note(&unrecorded) {
            print_note(note);
        }
        let total = index.count(&args.query, threshold);
        let placeholders = placeholders(&index, &args.query, threshold)?;
        if args.count {
            return if args.target.json { print_json(&total) } else { print_text(&format!("{total}\n")) };
        }
        let limit = usize::from(args.limit);
        let page = index.page(&args.query, args.sort, threshold, args.after.as_ref(), limit);
        let page = page.map_err(Failure::broken)?;
        let next = page.next.map(|cursor| cursor.to_string());
        if args.target.json {
            let faces = page.faces.iter().map(|face| json(face, &index)).collect::<Result<Vec<_>, _>>();
            let faces = faces.map_err(Failure::broken)?;
            let (unrecorded, _) = unrecorded;
            return print_json(
                &serde_json::json!({ "total": total, "faces": faces, "next": next, "unrecorded": unrecorded,
                                     "placeholders": placeholders }),
            );
        }
        let mut text: String = page.faces.iter().map(line).collect();
        text.push_str(&format!("{} of {}\n", page.faces.len(), counted(total, "face")));
        if placeholders > 0 {
            text.push_str(&format!(
                "{placeholders} of them are placeholders, which --where '{EXPORT_FILTER}' leaves out\n"
            ));
        }
        if let Some(next) = next {
            text.push_str(&format!("the next page: --after {next}\n"));
        }
        print_text(&text)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How many of the faces an export leaves out.
fn placeholders(index: &Index, query: &Query, threshold: f64) -> Result<u64, Failure> {
    let exported = export_filter().map_err(Failure::broken)?;
    Ok(index.count(&Query::And(vec![query.clone(), Query::Not(Box::new(exported))]), threshold))
}

/// Photo, P(OK), size, mirrored share, label and the key of the crop.
fn line(face: &Face) -> String {
    format!(
        "{:<12} {:<6} {:>5} px {:>4.0} % mirrored  {:<24} {}\n",
        face.photo_id.as_str().printable().to_string(),
        face.p_ok.map_or_else(|| "-".to_owned(), |p_ok| format!("{p_ok:.4}")),
        face.size,
        100.0 * face.mirrored,
        face.label_name.as_deref().unwrap_or("-").printable().to_string(),
        ObjectKey::face(face.crop, face.format)
    )
}

fn json(face: &Face, index: &Index) -> Result<serde_json::Value, IndexError> {
    let earlier = index.earlier_verdicts(&face.photo_id, face.crop)?;
    let earlier = earlier.iter().map(|verdict| {
        let Verdict { crop, judgement, reason, by, at, .. } = verdict;
        serde_json::json!({ "crop": crop, "judgement": judgement, "reason": reason, "judged_by": by, "at": at })
    });
    let quality = face.quality.as_ref();
    Ok(serde_json::json!({
        "photo_id": face.photo_id,
        "face_id": face.face_id,
        "label_id": face.label_id,
        "label_name": face.label_name,
        "photo_url": face.photo_url,
        "source_url": face.source_url,
        "posted_at": face.posted_at,
        "file": ObjectKey::face(face.crop, face.format).as_str(),
        "size": face.size,
        "landmark_scheme": face.landmark_scheme,
        "align": face.align,
        "fill": face.fill,
        "angle": face.angle,
        "mirrored": face.mirrored,
        "mirrored_head": face.mirrored_head,
        "blur": face.blur,
        "exposure": face.exposure,
        "contrast": quality.map(|quality| quality.contrast),
        "saturation": quality.map(|quality| quality.saturation),
        "face_blur": quality.map(|quality| quality.face_blur),
        "jpeg_quality": quality.map(|quality| quality.jpeg_quality),
        "yaw": quality.map(|quality| quality.yaw),
        "pitch": quality.map(|quality| quality.pitch),
        "eyes_open": quality.map(|quality| quality.eyes_open),
        "mouth_open": quality.map(|quality| quality.mouth_open),
        "outlier": quality.map(|quality| quality.outlier),
        "pixels": quality.map(|quality| quality.pixels),
        "score": face.score,
        "damaged": face.damaged,
        "opt_out": face.opt_out,
        "p_ok": face.p_ok,
        "model": face.model,
        "placeholder": face.is_placeholder(),
        "identity": face.identity,
        "verdict": face.verdict.as_ref().map(|verdict| verdict.judgement),
        "reason": face.verdict.as_ref().and_then(|verdict| verdict.reason),
        "judged_by": face.verdict.as_ref().map(|verdict| &verdict.by),
        "earlier_verdicts": earlier.collect::<Vec<_>>(),
    }))
}
