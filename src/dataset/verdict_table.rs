//! All verdicts of a run as rows of the index file, and what counts for each crop.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::face::FaceVerdict;
use super::rows;
use crate::domain::{ContentHash, Id, Judgement, SeenPrediction, Selection, Verdict, VerdictId, View};
use crate::verdicts::{CropVerdicts, LogPosition};

const MILLISECONDS_AN_HOUR: u64 = 3_600_000;
pub(super) const COLUMNS: &str = "id, photo_id, crop, judgement, reason, person, at, replaces, selection, view, repeat, seen_p_ok, \
    seen_model";

/// The verdicts on a crop that count.
pub fn on_crop(connection: &Connection, crop: ContentHash) -> rusqlite::Result<CropVerdicts> {
    let mut read = connection.prepare_cached("SELECT verdicts FROM crop_verdicts WHERE crop = ?1")?;
    let verdicts: Option<String> = read.query_row([crop.as_bytes()], |row| row.get(0)).optional()?;
    // What is unreadable is made again from the log when the file is deleted; the program writes it itself.
    Ok(verdicts.and_then(|verdicts| serde_json::from_str(&verdicts).ok()).unwrap_or_default())
}

/// The last `limit` verdicts on a photo, also on its earlier crops, and on a crop, in the order of the log.
pub(super) fn history(
    connection: &Connection,
    photo_id: &Id,
    crop: Option<ContentHash>,
    limit: usize,
) -> rusqlite::Result<Vec<Verdict>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT * FROM verdicts WHERE crop = ?1 OR photo_id = ?2
         ORDER BY number DESC LIMIT ?3) ORDER BY number"
    );
    let mut read = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let crop = crop.as_ref().map(|crop| crop.as_bytes());
    read.query_map(params![crop, photo_id.as_str(), limit], verdict)?.collect()
}

/// Adds verdicts up to `position`. Returns what counts now for the faces whose crops they are about, by their keys.
pub(super) fn add(
    transaction: &Transaction<'_>,
    verdicts: &[Verdict],
    position: LogPosition,
) -> rusqlite::Result<Vec<(i64, Option<FaceVerdict>)>> {
    let mut by_crop: BTreeMap<ContentHash, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts {
        by_crop.entry(verdict.crop).or_default().push(verdict);
    }
    add_rows(transaction, verdicts)?;
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO crop_verdicts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut keys = transaction.prepare_cached("SELECT key FROM faces WHERE crop = ?1")?;
    let mut changed = Vec::new();
    for (crop, verdicts) in by_crop {
        let mut counting = on_crop(transaction, crop)?;
        verdicts.into_iter().cloned().for_each(|verdict| counting.apply(verdict));
        let json = serde_json::to_string(&counting)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let of_face = FaceVerdict::of(&counting);
        let verdict = of_face.as_ref();
        put.execute(params![
            crop.as_bytes(),
            json,
            verdict.map(|verdict| verdict.judgement.as_str()),
            verdict.and_then(|verdict| verdict.reason).map(|reason| reason.as_str()),
            verdict.map(|verdict| verdict.by.as_str()),
            verdict.map(|verdict| verdict.day.as_str()),
            counting.verdicts().iter().any(|verdict| verdict.view == View::Bulk),
        ])?;
        for key in keys.query_map([crop.as_bytes()], |row| row.get(0))? {
            changed.push((key?, of_face.clone()));
        }
    }
    let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('verdicts', ?1)")?;
    set.execute([position.to_string()])?;
    Ok(changed)
}

fn add_rows(transaction: &Transaction<'_>, verdicts: &[Verdict]) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached(&format!(
        "INSERT OR IGNORE INTO verdicts ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?;
    let mut count = transaction.prepare_cached(
        "INSERT INTO verdict_hours VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET verdicts = verdicts + ?3, in_bulk = in_bulk + ?4",
    )?;
    for verdict in verdicts {
        let replaces: Vec<&str> = verdict.replaces.iter().map(VerdictId::as_str).collect();
        let seen = verdict.seen.as_ref();
        let added = add.execute(params![
            verdict.id.as_str(),
            verdict.photo_id.as_str(),
            verdict.crop.as_bytes(),
            verdict.judgement.as_str(),
            verdict.reason.map(|reason| reason.as_str()),
            verdict.by,
            verdict.at as i64,
            replaces.join(" "),
            verdict.selection.as_str(),
            verdict.view.as_str(),
            verdict.repeat,
            seen.map(|seen| seen.p_ok),
            seen.map(|seen| seen.model_sha256.as_bytes()),
        ])?;
        let is_judgement = verdict.judgement != Judgement::Unjudged && verdict.selection != Selection::Import;
        if added > 0 && is_judgement {
            let in_bulk = verdict.view == View::Bulk;
            let hour = (verdict.at / MILLISECONDS_AN_HOUR) as i64;
            count.execute(params![hour, verdict.by, !in_bulk, in_bulk])?;
        }
    }
    Ok(())
}

/// From a row of [`COLUMNS`].
pub(super) fn verdict(row: &Row<'_>) -> rusqlite::Result<Verdict> {
    let is_null = |column| row.get_ref(column).map(|value| value == ValueRef::Null);
    let replaces: String = row.get(7)?;
    Ok(Verdict {
        id: rows::word(row, 0)?,
        photo_id: Id::new(row.get::<_, String>(1)?),
        crop: rows::hash(row, 2)?,
        judgement: rows::word(row, 3)?,
        reason: if is_null(4)? { None } else { Some(rows::word(row, 4)?) },
        by: row.get(5)?,
        at: row.get::<_, i64>(6)? as u64,
        replaces: replaces.split_whitespace().filter_map(|id| id.parse().ok()).collect(),
        selection: rows::word(row, 8)?,
        view: rows::word(row, 9)?,
        repeat: row.get(10)?,
        seen: match is_null(11)? || is_null(12)? {
            true => None,
            false => Some(SeenPrediction { p_ok: row.get(11)?, model_sha256: rows::hash(row, 12)? }),
        },
    })
}
