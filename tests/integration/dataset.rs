//! The index of faces against a naive evaluation of the same queries.

use facemill::dataset::face::{FIELDS, Number, Text};
use facemill::dataset::follow::follow;
use facemill::dataset::index::{Change, Index};
use facemill::dataset::page::{Order, Sort};
use facemill::dataset::query::{FieldType, Operator, Query, Value};
use facemill::dataset::{Direction, Face, IndexError};
use facemill::domain::{Cause, CauseCode, Ending, Id, Message, Photo, Position, Record, RunName, StageName};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{Cursor, Epoch, Ledger};
use facemill::sqlite::{Access, Database};

use support::faces;

use faces::{Random, photo};

const THRESHOLD: f64 = 0.5;

fn ended(photo: Photo, ending: Ending, cause: Option<Cause>) -> Change {
    let stage = if ending == Ending::Predicted { StageName::Classify } else { StageName::Fetch };
    let message = Message { position: Position::entering(stage), ..Message::first(photo, 1_700_000_000) };
    Change::Ended(Box::new(Record { ending, cause, message }))
}

fn predicted(id: u64) -> Change {
    ended(photo(id), Ending::Predicted, None)
}

fn index_of(folder: &tempfile::TempDir) -> Index {
    Index::open(&folder.path().join("index.sqlite"), &RunName::default()).unwrap()
}

fn filled(faces: u64) -> (tempfile::TempDir, Index, Vec<Face>) {
    let folder = tempfile::tempdir().unwrap();
    let mut index = index_of(&folder);
    let changes: Vec<Change> = (0..faces).map(predicted).collect();
    index.apply(&changes, None).unwrap();
    let faces = (0..faces).map(|id| Face::of(&photo(id)).unwrap()).collect();
    (folder, index, faces)
}

/// What the documentation promises, value by value.
fn fulfils(face: &Face, query: &Query) -> bool {
    let text_of = |name: &str| match Text::ALL.into_iter().find(|text| text.field().name == name) {
        Some(text) => text.of(face),
        None => Some(face.photo_id.to_string()),
    };
    match query {
        Query::And(all) => all.iter().all(|query| fulfils(face, query)),
        Query::Or(any) => any.iter().any(|query| fulfils(face, query)),
        Query::Not(query) => !fulfils(face, query),
        Query::Compare(_, operator, Value::Flag(flag)) => operator.holds(face.p_ok >= THRESHOLD, *flag),
        Query::Compare(field, operator, Value::Number(number)) => {
            let of = Number::ALL.into_iter().find(|number| number.field().name == field.name).unwrap();
            operator.holds(of.of(face), *number as f32)
        }
        Query::Compare(field, operator, Value::Text(text)) if field.name == "id" => {
            operator.holds(&face.photo_id, &Id::from(text.as_str()))
        }
        Query::Compare(field, operator, Value::Text(text)) => {
            text_of(field.name).is_some_and(|value| operator.holds(value.as_str(), text.as_str()))
        }
        Query::In(field, values) => {
            values.iter().any(|value| fulfils(face, &Query::Compare(field, Operator::Equal, value.clone())))
        }
        Query::Contains(field, text) => {
            text_of(field.name).is_some_and(|value| value.to_lowercase().contains(&text.to_lowercase()))
        }
        Query::IsNull(field) => field.kind == FieldType::Text && text_of(field.name).is_none(),
    }
}

fn random_query(random: &mut Random, faces: &[Face], depth: u32) -> Query {
    if depth > 0 {
        let mut several =
            || (0..random.below(3) + 2).map(|_| random_query(random, faces, depth - 1)).collect::<Vec<_>>();
        match several().len() {
            2 => return Query::And(several()),
            3 => return Query::Or(several()),
            _ => {}
        }
        if random.below(2) == 0 {
            return Query::Not(Box::new(random_query(random, faces, depth - 1)));
        }
    }
    let field = &FIELDS[random.below(FIELDS.len() as u64) as usize];
    let face = &faces[random.below(faces.len() as u64) as usize];
    let operators = [
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
    ];
    let operator = operators[random.below(6) as usize];
    let text = || match Text::ALL.into_iter().find(|text| text.field().name == field.name) {
        Some(text) => text.of(face).unwrap_or_else(|| "none".into()),
        None => face.photo_id.to_string(),
    };
    match field.kind {
        FieldType::Number => {
            let of = Number::ALL.into_iter().find(|number| number.field().name == field.name).unwrap();
            Query::Compare(field, operator, Value::Number(f64::from(of.of(face))))
        }
        FieldType::Flag => Query::Compare(field, Operator::Equal, Value::Flag(random.below(2) == 0)),
        FieldType::Choice(_) => Query::Compare(field, operators[random.below(2) as usize], Value::Text(text())),
        FieldType::Text => match random.below(4) {
            0 => Query::IsNull(field),
            1 => Query::Contains(field, text().chars().take(3).collect()),
            2 => Query::In(field, vec![Value::Text(text()), Value::Text("other".into())]),
            _ => Query::Compare(field, operator, Value::Text(text())),
        },
    }
}

#[test]
fn random_queries_find_what_a_naive_evaluation_finds() {
    let (_folder, index, faces) = filled(700);
    let mut random = Random::new(7);
    let (mut some, mut all) = (0, 0);
    for round in 0..400 {
        let query = random_query(&mut random, &faces, round % 3);
        let expected = faces.iter().filter(|face| fulfils(face, &query)).count() as u64;
        assert_eq!(index.count(&query, THRESHOLD), expected, "{query}");
        let printed = query.to_string();
        let read = Query::parse(&printed, FIELDS).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(index.count(&read, THRESHOLD), expected, "{printed} reads back");
        some += u32::from(expected > 0 && expected < 700);
        all += 1;
    }
    assert!(some * 3 > all, "only {some} of {all} queries select some and not all");
}

#[test]
fn pages_visit_every_face_once_in_order() {
    let (_folder, index, faces) = filled(333);
    let query = Query::parse("size>=300", FIELDS).unwrap();
    let expected = faces.iter().filter(|face| face.size >= 300).count();
    let sorts = ["id", "updated", "published", "uncertainty", "p_ok", "size", "blur", "faces"];
    for order in sorts.iter().flat_map(|sort| [(*sort).to_owned(), format!("-{sort}")]) {
        let order: Order = order.parse().unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = index.page(&query, order, THRESHOLD, after.as_ref(), 50).unwrap();
            assert!(page.faces.len() == 50 || page.next.is_none());
            seen.extend(page.faces);
            match page.next {
                // Through its text, as a URL carries it.
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected, "{order:?}");
        let key = |face: &Face| match order.sort {
            Sort::By(number) => f64::from(number.of(face)),
            Sort::Uncertainty => f64::from((face.p_ok as f32 - THRESHOLD as f32).abs()),
            Sort::Published => published(face),
            Sort::Id | Sort::Updated => 0.0,
        };
        let in_order = seen.windows(2).all(|pair| {
            let ids = pair[0].photo_id < pair[1].photo_id;
            match (key(&pair[0]).partial_cmp(&key(&pair[1])).unwrap(), order.direction) {
                (std::cmp::Ordering::Equal, Direction::Ascending) => ids,
                (std::cmp::Ordering::Equal, Direction::Descending) => !ids,
                (ordering, Direction::Ascending) => ordering.is_lt(),
                (ordering, Direction::Descending) => ordering.is_gt(),
            }
        });
        assert!(in_order, "{order:?}");
    }
}

/// The test's faces are published on a day of January 2015, or at an unknown time.
fn published(face: &Face) -> f64 {
    let day = face.posted_at.as_deref().and_then(|text| text.strip_prefix("2015-01-")).and_then(|day| day.get(..2));
    day.map_or(f64::NEG_INFINITY, |day| day.parse().unwrap())
}

#[test]
fn a_face_reads_back_as_it_was_written() {
    let (_folder, index, faces) = filled(20);
    for face in &faces {
        assert_eq!(index.face(&face.photo_id).unwrap().as_ref(), Some(face));
    }
    assert_eq!(index.face(&"none".into()).unwrap(), None);
}

#[test]
fn photos_that_end_again_or_are_requeued_are_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = index_of(&folder);
    let gone = || ended(photo(2), Ending::Gone, Some(Cause::new(CauseCode::Http(404), "")));
    let position = Cursor { epoch: Epoch::random(), sequence: 3 };
    index.apply(&[predicted(1), gone(), predicted(1)], Some(&position)).unwrap();
    let totals = |index: &Index| {
        let mut totals: Vec<_> = index.endings().unwrap().iter().map(|count| (count.ending, count.photos)).collect();
        totals.sort();
        totals
    };
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 1);
    assert_eq!(totals(&index), [(Ending::Gone, 1), (Ending::Predicted, 1)]);
    let of_gone = index.endings().unwrap().into_iter().find(|count| count.ending == Ending::Gone).unwrap();
    assert_eq!((of_gone.cause, of_gone.stage), (Some(CauseCode::Http(404)), StageName::Fetch));

    index.apply(&[Change::Reopened(photo(1).candidate.photo_id), gone()], None).unwrap();
    assert_eq!((index.count(&Query::ALL, THRESHOLD), totals(&index)), (0, vec![(Ending::Gone, 1)]));
    assert_eq!(index.position().unwrap(), Some(position), "changes without a position keep it");

    index.clear().unwrap();
    assert_eq!((totals(&index), index.position().unwrap()), (vec![], None));
}

#[test]
fn an_index_survives_its_process_and_follows_another_writer() {
    let (folder, mut index, _) = filled(10);
    let mut other = index_of(&folder);
    assert_eq!(other.count(&Query::ALL, THRESHOLD), 10);
    other.apply(&[predicted(10), Change::Reopened(photo(3).candidate.photo_id)], None).unwrap();
    index.refresh().unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 10);
    assert!(index.face(&photo(3).candidate.photo_id).unwrap().is_none());
    index.apply(&[predicted(11)], None).unwrap();
    drop((index, other));
    assert_eq!(index_of(&folder).count(&Query::ALL, THRESHOLD), 11);
}

#[test]
fn an_index_of_another_run_or_schema_is_made_anew_and_a_foreign_file_is_refused() {
    let (folder, index, _) = filled(3);
    drop(index);
    let path = folder.path().join("index.sqlite");
    assert_eq!(Index::open(&path, &"other".parse().unwrap()).unwrap().count(&Query::ALL, THRESHOLD), 0);

    let (folder, index, _) = filled(3);
    drop(index);
    let path = folder.path().join("index.sqlite");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(index_of(&folder).count(&Query::ALL, THRESHOLD), 0);

    let foreign = folder.path().join("foreign.sqlite");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    assert!(matches!(Index::open(&foreign, &RunName::default()), Err(IndexError::Foreign(_))));
}

#[test]
fn texts_and_numbers_are_summed_up() {
    let (_folder, index, faces) = filled(500);
    let query = Query::parse("ok", FIELDS).unwrap();
    let ok = faces.iter().filter(|face| face.p_ok >= THRESHOLD).count() as u64;
    let labels = index.count_by(Text::Label, &query, THRESHOLD);
    assert_eq!(labels.iter().map(|(_, count)| count).sum::<u64>(), ok);
    assert!(labels.is_sorted_by(|a, b| a.1 >= b.1));
    for (label, count) in &labels {
        let of_label = faces.iter().filter(|face| face.p_ok >= THRESHOLD && face.label_name == *label).count() as u64;
        assert_eq!(of_label, *count, "{label:?}");
    }
    let bins = index.histogram(Number::POk, (0.0, 1.0), 10, &Query::ALL, THRESHOLD);
    assert_eq!((bins.len(), bins.iter().sum::<u64>()), (10, 500));
    assert_eq!(bins[5..].iter().sum::<u64>(), ok);
}

/// A folder's ledger with some photos that have ended, and one that waits.
async fn ledger_of(folder: &tempfile::TempDir, photos: u64) -> Sqlite {
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    let ledger = Sqlite::open(database).await.unwrap();
    for id in 0..photos {
        end(&ledger, id).await;
    }
    let waiting = photo(1_000_000).candidate;
    ledger.register(&RunName::default(), &[waiting], 1).await.unwrap();
    ledger
}

async fn end(ledger: &Sqlite, id: u64) {
    let at = Position::entering(StageName::Classify);
    let message = Message { position: at, ..Message::first(photo(id), 1_700_000_000) };
    assert!(ledger.restore(&message, Ending::Predicted, None).await.unwrap());
}

#[tokio::test]
async fn the_index_follows_the_feed_of_endings() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunName::default();
    let ledger = ledger_of(&folder, 2345).await;
    let mut index = index_of(&folder);
    let follow = async |index: &mut Index, ledger: &Sqlite| follow(index, &run, ledger, None, &|_| ()).await.unwrap();
    assert_eq!(follow(&mut index, &ledger).await, 2345);
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 2345);
    assert_eq!(follow(&mut index, &ledger).await, 0, "nothing is new");

    end(&ledger, 9000).await;
    let key = photo(7).key();
    ledger.reopen(&key, None, 2).await.unwrap().unwrap();
    follow(&mut index, &ledger).await;
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 2345);
    assert!(index.face(&key.photo_id).unwrap().is_none(), "it has been requeued");

    // Another process continues where this one stopped.
    drop(index);
    let mut index = index_of(&folder);
    assert_eq!(follow(&mut index, &ledger).await, 0);
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 2345);
}

#[tokio::test]
async fn an_index_starts_again_when_the_ledger_was_lost() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = RunName::default();
    let mut index = index_of(&folder);
    follow(&mut index, &run, &ledger_of(&folder, 30).await, None, &|_| ()).await.unwrap();
    // A rebuilt ledger has another epoch and other endings.
    follow(&mut index, &run, &ledger_of(&other, 12).await, None, &|_| ()).await.unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 12);
}
