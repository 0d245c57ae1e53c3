//! What the index knows of the verdicts of a run: histories, statistics, and the random sample.

use rusqlite::{OptionalExtension, Row, params};

use super::index::{Index, IndexError};
use super::rows;
use super::verdict_table::{self, COLUMNS, on_crop, verdict};
use crate::domain::{ContentHash, Id, Verdict};

/// How many judgements a person made in an hour. Undos and imports do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictHour {
    /// Hours since 1970, UTC.
    pub hour: u64,
    pub person: String,
    /// Single and in the grid.
    pub verdicts: u64,
    pub in_bulk: u64,
}

/// How often a person judged a picture alike that was shown a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    pub person: String,
    pub pairs: u64,
    pub same: u64,
}

/// Judgements of a sample of crops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    pub judged: u64,
    pub ok: u64,
}

impl Index {
    /// All verdicts on a photo, also on its earlier crops, and on a crop, in the order of the log; the last `limit`.
    pub fn verdict_history(&self, photo_id: &Id, crop: ContentHash, limit: usize) -> Result<Vec<Verdict>, IndexError> {
        let history = verdict_table::history(&self.connection, photo_id, Some(crop), limit);
        history.map_err(|error| self.failed(error))
    }

    /// The verdicts that count on the earlier crops of a photo, in the order of the log. They do not count for `crop`, the
    /// one that the photo has now.
    pub fn earlier_verdicts(&self, photo_id: &Id, crop: ContentHash) -> Result<Vec<Verdict>, IndexError> {
        let read = || {
            let sql = "SELECT crop FROM verdicts WHERE photo_id = ?1 AND crop <> ?2 GROUP BY crop ORDER BY max(number)";
            let mut read = self.connection.prepare_cached(sql)?;
            let crops = read.query_map(params![photo_id.as_str(), crop.as_bytes()], |row| rows::hash(row, 0))?;
            let mut earlier = Vec::new();
            for crop in crops {
                let counting = on_crop(&self.connection, crop?)?;
                if counting.judgement().is_some() {
                    earlier.extend(counting.verdicts().iter().cloned());
                }
            }
            Ok(earlier)
        };
        read().map_err(|error| self.failed(error))
    }

    /// The judgements of each hour from `since` on, oldest first. `since`: hours since 1970.
    pub fn verdict_hours(&self, since: u64) -> Result<Vec<VerdictHour>, IndexError> {
        let read = || {
            let sql =
                "SELECT hour, person, verdicts, in_bulk FROM verdict_hours WHERE hour >= ?1 ORDER BY hour, person";
            let mut read = self.connection.prepare_cached(sql)?;
            let hour = |row: &Row<'_>| {
                let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
                Ok(VerdictHour { hour: number(0)?, person: row.get(1)?, verdicts: number(2)?, in_bulk: number(3)? })
            };
            read.query_map([since as i64], hour)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// How far each person agrees with themselves: their last repeat on each crop against their last single verdict
    /// before it. Only pairs in which both say OK or NG count.
    pub fn agreements(&self) -> Result<Vec<Agreement>, IndexError> {
        let read = || {
            let mut read = self.connection.prepare_cached(
                "SELECT person, count(same), sum(same) FROM (
                     SELECT person, judgement = (
                         SELECT judgement FROM verdicts AS first INDEXED BY verdicts_by_crop
                         WHERE first.crop = repeats.crop AND first.person = repeats.person AND NOT first.repeat
                         AND view = 'single' AND judgement IN ('ok', 'ng') AND first.number < repeats.number
                         ORDER BY first.number DESC LIMIT 1) AS same
                     FROM verdicts AS repeats
                     WHERE repeat AND judgement IN ('ok', 'ng') AND number = (
                         SELECT max(number) FROM verdicts AS others
                         WHERE others.repeat AND others.person = repeats.person AND others.crop = repeats.crop))
                 WHERE same IS NOT NULL GROUP BY person ORDER BY person",
            )?;
            let agreement = |row: &Row<'_>| {
                let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
                Ok(Agreement { person: row.get(0)?, pairs: number(1)?, same: number(2)? })
            };
            read.query_map([], agreement)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// The crops that were chosen at random, judged singly, and of which the person saw a P(OK) of `model` at or above
    /// `p_ok`, with what counts for them now. Those that are not judged now, that are pending, or that were judged in
    /// bulk since are left out.
    pub fn random_sample(&self, model: ContentHash, p_ok: f64) -> Result<Sample, IndexError> {
        let read = || {
            let mut read = self.connection.prepare_cached(
                "SELECT count(*), coalesce(sum(judgement = 'ok'), 0) FROM (
                     SELECT DISTINCT crop FROM verdicts WHERE seen_model = ?1 AND seen_p_ok >= ?2
                     AND selection = 'random' AND view = 'single' AND NOT repeat AND judgement <> 'unjudged')
                 JOIN crop_verdicts USING (crop) WHERE judgement IN ('ok', 'ng') AND NOT in_bulk",
            )?;
            read.query_row(params![model.as_bytes(), p_ok], |row| {
                let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
                Ok(Sample { judged: number(0)?, ok: number(1)? })
            })
        };
        read().map_err(|error| self.failed(error))
    }

    /// A verdict that the person gave singly, that still counts and was not repeated yet, for a repeat: the first one
    /// behind a share of their verdicts. The last few are left out: the person remembers them. `share`: 0 to 1.
    pub fn verdict_to_repeat(&self, person: &str, share: f64) -> Result<Option<Verdict>, IndexError> {
        /// So many verdicts lie at least between a picture and its repeat.
        const DISTANCE: i64 = 50;
        const CANDIDATES: i64 = 16;
        let single = "person = ?1 AND view = 'single' AND NOT repeat AND judgement IN ('ok', 'ng')";
        let read = || {
            let end =
                format!("SELECT number FROM verdicts WHERE {single} ORDER BY number DESC LIMIT 1 OFFSET {DISTANCE}");
            let first = format!("SELECT number FROM verdicts WHERE {single} ORDER BY number LIMIT 1");
            let bound = |sql: &str| {
                let mut read = self.connection.prepare_cached(sql)?;
                read.query_row([person], |row| row.get::<_, i64>(0)).optional()
            };
            let (Some(last), Some(first)) = (bound(&end)?, bound(&first)?) else { return Ok(None) };
            let from = first + ((last - first + 1) as f64 * share.clamp(0.0, 1.0)) as i64;
            let sql = format!(
                "SELECT {COLUMNS} FROM verdicts AS chosen WHERE {single} AND number BETWEEN ?2 AND ?3
                 AND EXISTS (SELECT 1 FROM faces WHERE faces.crop = chosen.crop)
                 AND NOT EXISTS (SELECT 1 FROM verdicts AS repeats WHERE repeats.repeat AND repeats.person = ?1
                                 AND repeats.crop = chosen.crop)
                 ORDER BY number LIMIT {CANDIDATES}"
            );
            let mut read = self.connection.prepare_cached(&sql)?;
            for chosen in read.query_map(params![person, from, last], verdict)? {
                let chosen = chosen?;
                if on_crop(&self.connection, chosen.crop)?.verdicts().iter().any(|counting| counting.id == chosen.id) {
                    return Ok(Some(chosen));
                }
            }
            Ok(None)
        };
        read().map_err(|error| self.failed(error))
    }

    /// The verdicts whose ids begin with `prefix` and are `length` bytes long, in the order of their ids, after `after`.
    pub fn verdicts_named(
        &self,
        prefix: &str,
        length: usize,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Verdict>, IndexError> {
        let read = || {
            let sql = format!(
                "SELECT {COLUMNS} FROM verdicts WHERE id > ?1 AND id >= ?2 AND id < ?2 || '~' AND length(id) = ?3
                 ORDER BY id LIMIT ?4"
            );
            let mut read = self.connection.prepare_cached(&sql)?;
            read.query_map(params![after, prefix, length as i64, limit as i64], verdict)?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// How many verdicts [`Index::verdicts_named`] finds.
    pub fn count_verdicts_named(&self, prefix: &str, length: usize) -> Result<u64, IndexError> {
        let read = || {
            let sql = "SELECT count(*) FROM verdicts WHERE id >= ?1 AND id < ?1 || '~' AND length(id) = ?2";
            let mut read = self.connection.prepare_cached(sql)?;
            read.query_row(params![prefix, length as i64], |row| row.get::<_, i64>(0)).map(|count| count as u64)
        };
        read().map_err(|error| self.failed(error))
    }
}
