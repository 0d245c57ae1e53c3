//! How many OK faces are left among those that nobody has judged, from pictures that were chosen at random and judged
//! singly.
//!
//! People judge the promising or the uncertain faces first, so what is left is not like what was drawn at random
//! earlier. Among faces with nearly the same P(OK) it is, whatever order by P(OK) people have gone through. So a random
//! picture counts by the share of the faces around its P(OK) that are left.

use serde::Serialize;

use super::face::{FaceStatus, Number};
use super::index::{Index, IndexError};
use super::interval::EstimatedShare;
use super::query::Query;

/// Faces with the nearest P(OK), on each side of a random picture.
const AROUND: usize = 25;
/// People stop when this share of all OK faces is found.
pub const GOAL: f64 = 0.95;

/// A random picture that was judged singly, or a face that nobody has judged: its P(OK), if any.
type POk = Option<f32>;

/// The OK faces that are left, and what share of all is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OkLeft {
    /// Pictures that were chosen at random and judged singly, and those of them that are OK.
    pub random: u64,
    pub random_ok: u64,
    pub unjudged: u64,
    /// OK faces, however they were judged.
    pub found: u64,
    /// How many are left; none without random pictures.
    pub left: Option<EstimatedCount>,
    /// At least this share of all OK faces is found, with a certainty of 97.5 %.
    pub found_share_low: f64,
    /// The stop rule: at least [`GOAL`] of all OK faces is found.
    pub is_complete: bool,
}

/// A number, and the interval that has its true value with a probability of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EstimatedCount {
    pub count: f64,
    pub low: f64,
    pub high: f64,
}

impl OkLeft {
    /// `random`: the P(OK) of each random picture, and whether it is OK. `unjudged`: the P(OK) of each unjudged face.
    /// `judged`: that of each face that was judged and is no random picture. `found`: OK faces.
    pub fn of(random: &[(POk, bool)], unjudged: &[POk], judged: &[POk], found: u64) -> Self {
        let left = match unjudged {
            [] => Some(EstimatedCount { count: 0.0, low: 0.0, high: 0.0 }),
            _ => estimate(random, unjudged, judged),
        };
        let high = left.map_or(unjudged.len() as f64, |left| left.high);
        let all = found as f64 + high;
        let found_share_low = if all > 0.0 { found as f64 / all } else { 1.0 };
        Self {
            random: random.len() as u64,
            random_ok: random.iter().filter(|(_, ok)| *ok).count() as u64,
            unjudged: unjudged.len() as u64,
            found,
            left,
            found_share_low,
            is_complete: found_share_low >= GOAL,
        }
    }
}

/// The share of OK in the weighted sample, times the unjudged faces. The size of a sample with weights is that of Kish
/// (1965), "Survey sampling": (sum of the weights)^2 / sum of their squares.
fn estimate(random: &[(POk, bool)], unjudged: &[POk], judged: &[POk]) -> Option<EstimatedCount> {
    let mut around: Vec<(f32, f64)> = unjudged.iter().flatten().map(|p_ok| (*p_ok, 1.0)).collect();
    around.extend(judged.iter().flatten().map(|p_ok| (*p_ok, 0.0)));
    around.sort_by(|a, b| a.0.total_cmp(&b.0));
    let unscored = |faces: &[POk]| faces.iter().filter(|p_ok| p_ok.is_none()).count() as f64;
    let (left, gone) = (unscored(unjudged), unscored(judged));
    let weight = |p_ok: POk| match p_ok {
        Some(p_ok) => {
            let at = around.partition_point(|(other, _)| *other < p_ok);
            let near = &around[at.saturating_sub(AROUND)..(at + AROUND).min(around.len())];
            near.iter().map(|(_, left)| left).sum::<f64>() / near.len().max(1) as f64
        }
        None if left > 0.0 => left / (left + gone),
        None => 0.0,
    };
    let (mut sum, mut squares, mut ok) = (0.0, 0.0, 0.0);
    for (p_ok, is_ok) in random {
        let weight = weight(*p_ok);
        sum += weight;
        squares += weight * weight;
        ok += if *is_ok { weight } else { 0.0 };
    }
    let faces = unjudged.len() as f64;
    (sum > 0.0).then(|| {
        // The faces that are left are as much a sample as the random ones: both vary.
        let n = sum * sum / squares;
        let share = EstimatedShare::of_share(ok / sum, n * faces / (n + faces));
        EstimatedCount { count: faces * share.share, low: faces * share.low, high: faces * share.high }
    })
}

impl Index {
    /// P(OK) of each face of the run, in no order that means anything; not a number where there is none.
    pub fn p_ok_of_all(&self) -> Vec<f32> {
        self.columns.present().iter().map(|row| self.columns.number(Number::POk, row)).collect()
    }

    /// How many OK faces are left, from the verdicts and predictions in the index. Random pictures that are not judged
    /// now, that are pending, or that were judged in bulk since are left out.
    pub fn ok_left(&self) -> Result<OkLeft, IndexError> {
        let read = || {
            let mut read = self.connection.prepare_cached(
                "SELECT min(key), judgement = 'ok' FROM (
                     SELECT DISTINCT crop FROM verdicts
                     WHERE selection = 'random' AND view = 'single' AND NOT repeat AND judgement <> 'unjudged')
                 JOIN crop_verdicts USING (crop) JOIN faces USING (crop)
                 WHERE judgement IN ('ok', 'ng') AND NOT in_bulk GROUP BY crop",
            )?;
            let random = read.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))?;
            random.collect::<rusqlite::Result<Vec<_>>>()
        };
        let random = read().map_err(|error| self.failed(error))?;
        let p_ok = |row: usize| Some(self.columns.number(Number::POk, row)).filter(|p_ok| !p_ok.is_nan());
        let all_unjudged = self.all_unjudged();
        let mut others = self.columns.present().clone().minus(&all_unjudged);
        let mut of_random = Vec::with_capacity(random.len());
        for (key, ok) in random {
            if let Some(row) = self.row(key) {
                others.remove_if_there(row);
                of_random.push((p_ok(row), ok));
            }
        }
        let (mut unjudged, mut judged) = (Vec::new(), Vec::new());
        all_unjudged.each(|row| unjudged.push(p_ok(row)));
        others.each(|row| judged.push(p_ok(row)));
        let found = self.status_counts(&Query::ALL, self.threshold()).all[FaceStatus::Ok as usize];
        Ok(OkLeft::of(&of_random, &unjudged, &judged, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::page::scattered;

    /// Uniform in [0, 1).
    fn unit(state: &mut u64) -> f64 {
        *state += 1;
        (scattered(*state) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A run of 3,000 faces of which one in seven is OK: 1,000 were judged best first, and every tenth picture was
    /// random. How many are left, and the estimate.
    fn session(seed: u64, is_scored: bool) -> (f64, OkLeft) {
        let mut state = seed << 32;
        let mut faces: Vec<(f32, bool)> = (0..3000)
            .map(|_| {
                let p_ok = unit(&mut state).powi(6);
                (p_ok as f32, unit(&mut state) < p_ok)
            })
            .collect();
        faces.sort_by(|a, b| b.0.total_cmp(&a.0));
        let p_ok = |p_ok: f32| is_scored.then_some(p_ok);
        let (mut random, mut judged, mut found) = (Vec::new(), Vec::new(), 0);
        for number in 0..1000 {
            // Without scores, the order of the list is none by P(OK).
            let is_random = number % 10 == 0 || !is_scored;
            let at = if is_random { (unit(&mut state) * faces.len() as f64) as usize } else { 0 };
            let (score, ok) = faces.remove(at);
            found += u64::from(ok);
            if is_random {
                random.push((p_ok(score), ok));
            } else {
                judged.push(p_ok(score));
            }
        }
        let left = faces.iter().filter(|(_, ok)| *ok).count() as f64;
        let unjudged: Vec<POk> = faces.iter().map(|(score, _)| p_ok(*score)).collect();
        (left, OkLeft::of(&random, &unjudged, &judged, found))
    }

    #[test]
    fn the_interval_has_the_number_that_is_left() {
        for is_scored in [true, false] {
            let (mut covered, mut bias) = (0, 0.0);
            for seed in 1..=1000 {
                let (left, estimate) = session(seed, is_scored);
                let found = estimate.left.unwrap();
                covered += u32::from(found.low <= left && left <= found.high);
                bias += (found.count - left) / 1000.0;
            }
            println!("scored: {is_scored}; covered {covered} of 1000, bias {bias:.1}");
            assert!(covered >= 930, "{is_scored}: {covered} of 1000");
            assert!(bias.abs() < 8.0, "{is_scored}: {bias}");
        }
    }

    #[test]
    fn the_stop_rule_needs_random_pictures() {
        let none = OkLeft::of(&[], &[Some(0.1); 100], &[], 90);
        assert_eq!((none.left, none.is_complete), (None, false));
        let ng = vec![(Some(0.01), false); 400];
        let found = OkLeft::of(&ng, &[Some(0.01); 100], &[], 90);
        assert!(found.is_complete, "{found:?}");
        let more = OkLeft::of(&ng, &[Some(0.01); 2000], &[], 90);
        assert!(!more.is_complete && more.left.unwrap().count == 0.0, "{more:?}");
        assert!(OkLeft::of(&[], &[], &[], 0).is_complete);
    }
}
