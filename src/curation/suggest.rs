//! Keeps the suggested order of a server's faces: it is made anew for another classifier, and when much was judged.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::feature_settings::FeatureSettings;
use super::state::CurationState;
use crate::classifier::features::FeatureError;
use crate::dataset::{Index, Query};
use crate::domain::ContentHash;
use crate::services::suggestions::{ChosenMethod, Suggester, SuggestionError, order_without_features};

/// How often the server looks whether the order is still good.
const PERIOD: Duration = Duration::from_secs(2);
/// The wait after a fault.
const PAUSE: Duration = Duration::from_secs(60);
/// One thread extracts features: the others are for the people who judge.
const THREADS: usize = 1;

/// What an order was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Basis {
    model: Option<ContentHash>,
    threshold: f64,
}

/// The order as it is now.
#[derive(Debug, Clone, Copy)]
struct Standing {
    basis: Basis,
    faces: u64,
    /// Faces with a P(OK).
    scored: u64,
    /// Faces that the order names, and those of them that nobody has judged.
    named: u64,
    unjudged: u64,
    number: u64,
}

impl Standing {
    fn of(index: &Index) -> Self {
        let split = index.ok_split(&Query::ALL, index.threshold());
        let (named, unjudged) = index.suggested_left();
        let scored = split.ok + split.ng;
        let basis = Basis { model: index.model(), threshold: index.threshold() };
        Self { basis, faces: scored + split.unscored, scored, named, unjudged, number: index.suggested() }
    }

    /// Whether an order that was made when the index was in the state `made` should be made anew.
    fn is_outdated(&self, made: &Self) -> bool {
        let is_used_up = self.named > 0 && 2 * self.unjudged < self.named;
        let has_doubled = |now: u64, before: u64| now > before && now >= 2 * before;
        let has_grown = has_doubled(self.faces, made.faces) || has_doubled(self.scored, made.scored);
        // The index has lost its orders when it was filled anew.
        self.basis != made.basis || is_used_up || has_grown || self.number < made.number
    }
}

/// Makes the order, and makes it again when it is outdated, until `shutdown`.
pub async fn keep_suggesting(shared: &CurationState, settings: &FeatureSettings, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = run(shared, settings) => {}
    }
}

async fn run(shared: &CurationState, settings: &FeatureSettings) {
    let mut maker = OrderMaker { shared, settings, suggester: None, announced: None };
    let mut made: Option<Standing> = None;
    let mut is_faulty = false;
    loop {
        let now = shared.index.with(|index| Standing::of(index)).await;
        if made.as_ref().is_none_or(|made| now.is_outdated(made)) {
            match maker.make(now.basis).await {
                Ok(number) => {
                    made = Some(Standing { number, ..now });
                    is_faulty = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_faulty, true) {
                        tracing::warn!(%error, "the suggested order is made without features of the crops");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

struct OrderMaker<'a> {
    shared: &'a CurationState,
    settings: &'a FeatureSettings,
    suggester: Option<Suggester>,
    /// What the last order without features was made from.
    announced: Option<Basis>,
}

impl OrderMaker<'_> {
    /// Makes an order and returns its number. Until features are there, an order without them takes its place.
    async fn make(&mut self, basis: Basis) -> Result<u64, SuggestionError> {
        let Self { shared, settings, .. } = *self;
        let mut index = shared.index.clone();
        let chosen = ChosenMethod::of(&mut index, &shared.objects).await?;
        if self.announced != Some(basis) {
            order_without_features(&mut index, chosen.method).await?;
            self.announced = Some(basis);
        }
        let suggester = match &mut self.suggester {
            Some(suggester) => suggester,
            none => none.insert(open(settings)?),
        };
        let made = suggester.order(&mut index, &shared.objects, &Query::ALL, chosen.method, &|_, _| {}).await?;
        let ChosenMethod { method, why } = chosen;
        tracing::info!(?method, why, crops = made.candidates, "the suggested order is made");
        Ok(made.number)
    }
}

fn open(settings: &FeatureSettings) -> Result<Suggester, SuggestionError> {
    Suggester::open(&settings.models, settings.open_store().map_err(FeatureError::from)?, THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_made_anew_for_another_classifier_and_when_half_of_it_is_judged() {
        let basis = Basis { model: None, threshold: 0.5 };
        let made = Standing { basis, faces: 100, scored: 0, named: 80, unjudged: 80, number: 2 };
        assert!(!made.is_outdated(&made));
        assert!(!Standing { unjudged: 40, faces: 199, number: 3, ..made }.is_outdated(&made));
        for outdated in [
            Standing { basis: Basis { threshold: 0.6, ..basis }, ..made },
            Standing { basis: Basis { model: Some(ContentHash::of(b"model")), ..basis }, ..made },
            Standing { scored: 1, ..made },
            Standing { unjudged: 39, ..made },
            Standing { faces: 200, ..made },
            Standing { number: 0, ..made },
        ] {
            assert!(outdated.is_outdated(&made), "{outdated:?}");
        }
    }
}
