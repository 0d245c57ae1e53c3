//! Many photos that pass the pipeline, for measuring a ledger.
use facemill::domain::{Candidate, Cause, Ending, Id, Message, Photo, Position, RunName, StageName, State};
use facemill::ledger::{Event, EventKind, Ledger, Move, Moved};
use futures::{StreamExt, TryStreamExt, stream};

/// How a photo ends. A third is gone, as in the original collection; a tenth needs a second attempt.
#[derive(Debug, Clone, Copy)]
struct Fate {
    retries: u32,
    stage: StageName,
    ending: Ending,
    code: &'static str,
}

impl Fate {
    fn of(number: u64) -> Self {
        let retries = u32::from(number.is_multiple_of(10));
        let (stage, ending, code) = match number % 100 {
            0..28 => (StageName::Fetch, Ending::Gone, "http-404"),
            28..33 => (StageName::Fetch, Ending::Gone, "http-403"),
            33..35 => (StageName::Fetch, Ending::Failed, "timeout"),
            35..50 => (StageName::Detect, Ending::Rejected, "no-face"),
            50..60 => (StageName::Detect, Ending::Rejected, "several-faces"),
            60..64 => (StageName::Crop, Ending::Rejected, "out-of-frame"),
            _ => (StageName::Classify, Ending::Predicted, ""),
        };
        Self { retries, stage, ending, code }
    }
}

pub fn candidate(number: u64) -> Candidate {
    let host = number % 12;
    Candidate {
        photo_id: Id::from(1_000_000 + number as i64),
        face_id: Id::from(2_000_000 + number as i64),
        label_id: Id::from((number % 500) as i64),
        label_name: Some(format!("person {}", number % 500)),
        photo_url: format!("https://{host}.media.photos.example/{number:032x}/photo_{number}_1280.jpg"),
        source_url: Some(format!("https://blog{host}.photos.example/post/{number}")),
        posted_at: Some("2015-06-07 08:09:10".into()),
        source: None,
        columns: Default::default(),
    }
}

/// Registers the photos `numbers` and moves each to its end. Returns the number of moves.
pub async fn live(ledger: &dyn Ledger, run: &RunName, numbers: std::ops::Range<u64>) -> u64 {
    const BATCH: u64 = 1000;
    const CONCURRENT: usize = 64;
    let mut moves = 0;
    for start in numbers.clone().step_by(BATCH as usize) {
        let batch = start..(start + BATCH).min(numbers.end);
        let candidates: Vec<Candidate> = batch.clone().map(candidate).collect();
        ledger.register(run, &candidates, 1_700_000_000).await.unwrap();
        moves += stream::iter(batch)
            .map(|number| async move { Ok::<_, ()>(live_one(ledger, run, number).await) })
            .buffer_unordered(CONCURRENT)
            .try_fold(0, |sum, moves| async move { Ok(sum + moves) })
            .await
            .unwrap();
    }
    moves
}

async fn live_one(ledger: &dyn Ledger, run: &RunName, number: u64) -> u64 {
    let fate = Fate::of(number);
    let mut message = Message::first(Photo::new(run.clone(), candidate(number)), 1_700_000_000);
    let key = message.photo.key();
    let mut moves = 0;
    loop {
        let from = message.position;
        let at_end = from.stage == fate.stage;
        let cause = |code| {
            let detail = format!("{} answered with an error status", message.photo.candidate.host());
            Cause::new(code, detail)
        };
        let (to, what, cause) = match from.delivery <= fate.retries && from.stage == StageName::Fetch {
            true => (State::Waiting(from.next_delivery()), EventKind::Retried, Some(cause("http-503"))),
            false if at_end => {
                let cause = (fate.ending != Ending::Predicted).then(|| cause(fate.code));
                (State::Ended(fate.ending), fate.ending.into(), cause)
            }
            false => (State::Waiting(Position::entering(from.stage.next().unwrap())), EventKind::Advanced, None),
        };
        let next = match to {
            State::Waiting(position) => Message { position, ..message.clone() },
            State::Ended(_) => message.clone(),
        };
        let at_ms = 1_700_000_000_000 + number;
        let event = Event { at_ms, stage: from.stage, attempt: 1, what, cause, took_ms: 400 };
        let step = Move { key: &key, from, to, attempt: 1, due_at: 0, event, message: &next };
        assert_eq!(ledger.advance(&step).await.unwrap(), Moved::Done);
        moves += 1;
        if let State::Ended(ending) = to {
            ledger.recorded(&key, from, ending).await.unwrap();
            return moves;
        }
        message = next;
    }
}
