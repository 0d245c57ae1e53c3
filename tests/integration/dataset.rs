//! The index of faces against a naive evaluation of the same queries.

use facemill::dataset::export_filter::export_filter;
use facemill::dataset::face::{FIELDS, Number, Text};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use facemill::archive::predictions::Predictions;
use facemill::archive::records::Records;
use facemill::archive::run_classifier::{ClassifierChange, ClassifierHistory, RunClassifiers};
use facemill::dataset::caps::Caps;
use facemill::dataset::index::{Change, Index, OkSplit};
use facemill::dataset::page::{Order, Sort};
use facemill::dataset::query::{FieldType, Operator, Query, Value};
use facemill::dataset::selection::{SelectionError, SelectionSettings, select};
use facemill::dataset::{Direction, Face, FaceStatus, FaceVerdict, IndexError, IndexSource};
use facemill::domain::{
    Candidate, Cause, CauseCode, ContentHash, Ending, Id, Judgement, Message, NgReason, Photo, Position, Prediction,
    Record, RunName, Selection, StageName, Verdict, View,
};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{Cursor, Epoch, Ledger};
use facemill::objects::Objects;
use facemill::objects::folder::Folder;
use facemill::sqlite::{Access, Database};
use facemill::verdicts::{VerdictLog, VerdictWriter};

use support::faces;
use support::servers::redis::RedisServer;

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
    let photos: Vec<Photo> = (0..faces).map(sharing).collect();
    let changes: Vec<Change> = photos.iter().map(|photo| ended(photo.clone(), Ending::Predicted, None)).collect();
    // Half of the verdicts are known before the faces.
    let judged: Vec<Verdict> = (0..faces).flat_map(verdicts).collect();
    let (first, second) = judged.split_at(judged.len() / 2);
    assert!(index.add_verdicts(Default::default(), first, "1:10".parse().unwrap()).unwrap());
    index.apply(&changes, None).unwrap();
    assert!(index.add_verdicts("1:10".parse().unwrap(), second, "1:20".parse().unwrap()).unwrap());
    let original = |photo: &Photo| photo.facts.original.as_ref().unwrap().sha256;
    let mut labels: HashMap<ContentHash, Vec<String>> = HashMap::new();
    for photo in &photos {
        let Candidate { label_name, label_id, .. } = &photo.candidate;
        let label = label_name.clone().unwrap_or(label_id.to_string());
        labels.entry(original(photo)).or_default().push(label);
    }
    let faces = (0..).zip(&photos).map(|(id, photo)| {
        let mut face = Face::of(photo).unwrap();
        let labels = &labels[&original(photo)];
        face.shared_photos = labels.len() as u32;
        face.shared_labels = labels.iter().collect::<HashSet<_>>().len() as u32;
        face.verdict = counting(id);
        face
    });
    (folder, index, faces.collect())
}

/// A photo; every fifth shares its original with others.
fn sharing(id: u64) -> Photo {
    let mut photo = photo(id);
    if id.is_multiple_of(5) {
        photo.facts.original.as_mut().unwrap().sha256 = ContentHash::of(&[(id % 60) as u8]);
    }
    photo
}

fn verdict(id: u64, number: u64, judgement: Judgement) -> Verdict {
    Verdict {
        id: format!("{id}-{number}").parse().unwrap(),
        photo_id: (id as i64).into(),
        crop: photo(id).facts.crop.unwrap().sha256,
        judgement,
        reason: (judgement == Judgement::Ng && id.is_multiple_of(2)).then_some(NgReason::CutOff),
        by: if number == 0 { "ada".into() } else { "grace".into() },
        at: 0,
        replaces: vec![],
        selection: Selection::Random,
        view: View::Single,
        repeat: false,
        seen: None,
    }
}

/// Verdicts on some photos: one, an undone one, one that replaces another, two that contradict each other.
fn verdicts(id: u64) -> Vec<Verdict> {
    let first = |judgement| verdict(id, 0, judgement);
    let second = |judgement| verdict(id, 1, judgement);
    let replacing = |judgement| Verdict { replaces: vec![first(judgement).id], ..second(judgement) };
    match id % 8 {
        0 => vec![first(Judgement::Ok)],
        1 => vec![first(Judgement::Ng)],
        2 => vec![first(Judgement::Ok), replacing(Judgement::Ng)],
        3 => vec![first(Judgement::Ng), second(Judgement::Ok)],
        4 => vec![first(Judgement::Ok), replacing(Judgement::Unjudged)],
        5 => vec![first(Judgement::Pending)],
        _ => vec![],
    }
}

/// What counts of [`verdicts`].
fn counting(id: u64) -> Option<FaceVerdict> {
    let verdict =
        |judgement, reason, by: &str| Some(FaceVerdict { judgement, reason, by: by.into(), day: "1970-01-01".into() });
    let reason = (id.is_multiple_of(2)).then_some(NgReason::CutOff);
    match id % 8 {
        0 => verdict(Judgement::Ok, None, "ada"),
        1 => verdict(Judgement::Ng, reason, "ada"),
        2 => verdict(Judgement::Ng, reason, "grace"),
        3 => verdict(Judgement::Pending, None, "grace"),
        5 => verdict(Judgement::Pending, None, "ada"),
        _ => None,
    }
}

fn status(face: &Face) -> FaceStatus {
    FaceStatus::of(face.verdict.as_ref().map(|verdict| verdict.judgement), face.p_ok, THRESHOLD)
}

/// What the documentation promises, value by value.
fn fulfils(face: &Face, query: &Query) -> bool {
    let text_of = |name: &str| match Text::ALL.into_iter().find(|text| text.field().name == name) {
        Some(text) => text.of(face),
        None if name == "pixels" => face.quality.as_ref().map(|quality| quality.pixels.to_string()),
        None if name == "status" => Some(status(face).as_str().to_owned()),
        None => Some(face.photo_id.to_string()),
    };
    match query {
        Query::And(all) => all.iter().all(|query| fulfils(face, query)),
        Query::Or(any) => any.iter().any(|query| fulfils(face, query)),
        Query::Not(query) => !fulfils(face, query),
        // Nobody has looked for duplicates or identities.
        Query::Compare(field, operator, Value::Flag(flag)) if ["duplicate", "wrong_person"].contains(&field.name) => {
            operator.holds(false, *flag)
        }
        Query::Compare(field, operator, Value::Flag(flag)) if field.name == "placeholder" => {
            operator.holds(face.is_placeholder(), *flag)
        }
        Query::Compare(field, operator, Value::Flag(flag)) if field.name == "damaged" => {
            operator.holds(face.damaged.is_some(), *flag)
        }
        Query::Compare(_, operator, Value::Flag(flag)) => {
            face.p_ok.is_some_and(|p_ok| operator.holds(p_ok >= THRESHOLD, *flag))
        }
        Query::Compare(field, operator, Value::Number(number)) => {
            let of = Number::ALL.into_iter().find(|number| number.field().name == field.name).unwrap();
            let value = of.of(face);
            !value.is_nan() && operator.holds(value, *number as f32)
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
        Query::IsNull(field) => match field.name {
            "ok" | "p_ok" => face.p_ok.is_none(),
            name => Number::ALL.into_iter().find(|number| number.field().name == name).map_or_else(
                || matches!(field.kind, FieldType::Text | FieldType::Choice(_)) && text_of(name).is_none(),
                |number| number.of(face).is_nan(),
            ),
        },
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
    if random.below(20) == 0 {
        return Query::IsNull(field);
    }
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
        None if field.name == "pixels" => {
            face.quality.as_ref().map_or_else(String::new, |quality| quality.pixels.to_string())
        }
        None => face.photo_id.to_string(),
    };
    match field.kind {
        FieldType::Number => {
            let of = Number::ALL.into_iter().find(|number| number.field().name == field.name).unwrap();
            match of.of(face) {
                value if value.is_nan() => Query::IsNull(field),
                value => Query::Compare(field, operator, Value::Number(f64::from(value))),
            }
        }
        FieldType::Flag => Query::Compare(field, Operator::Equal, Value::Flag(random.below(2) == 0)),
        FieldType::Choice(words) => {
            let word = |random: &mut Random| Value::Text(words[random.below(words.len() as u64) as usize].into());
            match random.below(3) {
                0 => Query::In(field, vec![word(random), word(random)]),
                _ => Query::Compare(field, operators[random.below(2) as usize], word(random)),
            }
        }
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
    // More than a page considers at a time.
    let (_folder, index, faces) = filled(9000);
    let query = Query::parse("size>=300", FIELDS).unwrap();
    let expected = faces.iter().filter(|face| face.size >= 300).count();
    let sorts = ["id", "updated", "published", "uncertainty", "p_ok", "size", "blur", "faces"];
    for order in sorts.iter().flat_map(|sort| [(*sort).to_owned(), format!("-{sort}")]) {
        let order: Order = order.parse().unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = index.page(&query, order, THRESHOLD, after.as_ref(), 700).unwrap();
            assert!(page.faces.len() == 700 || page.next.is_none());
            seen.extend(page.faces);
            match page.next {
                // Through its text, as a URL carries it.
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected, "{order:?}");
        let last = if order.direction == Direction::Ascending { f64::INFINITY } else { f64::NEG_INFINITY };
        let key = |face: &Face| {
            let key = match order.sort {
                Sort::By(number) => f64::from(number.of(face)),
                Sort::Uncertainty => f64::from((Number::POk.of(face) - THRESHOLD as f32).abs()),
                Sort::Published => published(face),
                Sort::Id | Sort::Updated | Sort::Random(_) | Sort::Suggested(_) => 0.0,
            };
            if key.is_nan() { last } else { key }
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

/// The counts follow photos with and without a face as they end, end again, and are requeued.
#[test]
fn originals_that_are_shared_are_counted_as_photos_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = index_of(&folder);
    let with = |id: u64, original: &str, label: i64| {
        let mut photo = photo(id);
        (photo.candidate.label_id, photo.candidate.label_name) = (label.into(), None);
        photo.facts.original.as_mut().unwrap().sha256 = ContentHash::of(original.as_bytes());
        photo
    };
    let face = |id, original, label| ended(with(id, original, label), Ending::Predicted, None);
    let no_face = |id, original, label| {
        let mut photo = with(id, original, label);
        photo.facts.face = None;
        ended(photo, Ending::Rejected, Some(Cause::new(CauseCode::NoFace, "")))
    };
    let query = |text: &str| Query::parse(text, FIELDS).unwrap();
    let count = |index: &Index| {
        let (shared, found) = (query("shared_photos>1"), query("placeholder"));
        let of_file = Index::open(&folder.path().join("index.sqlite"), &RunName::default()).unwrap();
        let counts = (index.count(&shared, THRESHOLD), index.count(&found, THRESHOLD));
        assert_eq!(counts, (of_file.count(&shared, THRESHOLD), of_file.count(&found, THRESHOLD)), "read again");
        counts
    };
    index.apply(&[face(1, "a", 1), face(2, "b", 1), face(3, "c", 2)], None).unwrap();
    assert_eq!(count(&index), (0, 0));
    // The same picture twice, with one label: no placeholder.
    index.apply(&[face(4, "a", 1)], None).unwrap();
    assert_eq!(count(&index), (2, 0));
    // A photo of another label, without a face.
    index.apply(&[no_face(5, "a", 2)], None).unwrap();
    assert_eq!(count(&index), (2, 2));
    let face_1 = index.face(&1.into()).unwrap().unwrap();
    assert_eq!((face_1.shared_photos, face_1.shared_labels, face_1.is_placeholder()), (3, 2, true));
    let all = index.placeholders(1).unwrap();
    assert_eq!((all.originals, all.photos, all.faces), (1, 3, 2));
    assert_eq!(all.largest[0].original, ContentHash::of(b"a"));
    let stored = Index::stored_placeholders(&folder.path().join("index.sqlite"), &RunName::default(), 1).unwrap();
    assert_eq!(stored, Some(all));
    let exported = export_filter().unwrap();
    assert_eq!(index.count(&exported, THRESHOLD), 2, "b and c");
    assert_eq!(index.count(&query("placeholder=false"), THRESHOLD), 2);
    let selected = |text: &str, placeholders: bool| {
        let settings = SelectionSettings {
            query: query(text),
            order: Order { sort: Sort::Id, direction: Direction::Ascending },
            sort: "id".into(),
            number: None,
            size: 1,
            upscale: true,
            caps: Caps::default(),
            placeholders,
            duplicates: true,
        };
        select(&index, &settings)
    };
    assert!(matches!(selected("shared_photos>1", false), Err(SelectionError::OnlyPlaceholders(2))));
    assert!(matches!(selected("id=99", false), Err(SelectionError::NoFaces(_))));
    assert_eq!(selected("shared_photos>1", true).unwrap().matching, 2);

    // It is requeued, and ends with another picture.
    index.apply(&[Change::Reopened(5.into())], None).unwrap();
    assert_eq!(count(&index), (2, 0));
    index.apply(&[no_face(5, "c", 1)], None).unwrap();
    assert_eq!(count(&index), (3, 1));
    // Ten photos of one label.
    let more: Vec<Change> = (10..17).map(|id| face(id, "b", 1)).collect();
    index.apply(&more, None).unwrap();
    assert_eq!(count(&index), (11, 1), "eight photos of b");
    index.apply(&[no_face(20, "b", 1), no_face(21, "b", 1)], None).unwrap();
    assert_eq!(count(&index), (11, 9));
    // One person has another id in a second source. A photo without a label is evidence of nothing.
    let named = |id: u64, label: &str, name: Option<&str>| {
        let mut photo = with(id, "d", 0);
        (photo.candidate.label_id, photo.candidate.label_name) = (label.into(), name.map(str::to_owned));
        ended(photo, Ending::Predicted, None)
    };
    index.apply(&[named(30, "1", Some("Ada")), named(31, "x-9", Some("Ada")), named(32, "", None)], None).unwrap();
    assert_eq!(count(&index), (14, 9));
    index.apply(&[named(33, "2", Some("Eve"))], None).unwrap();
    assert_eq!(count(&index), (15, 13));
    index.clear().unwrap();
    assert_eq!((count(&index), index.placeholders(5).unwrap().originals), ((0, 0), 0));
}

#[test]
fn the_stored_placeholders_of_another_file_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.sqlite");
    let stored = |run: &str| Index::stored_placeholders(&path, &run.parse().unwrap(), 5);
    assert_eq!(stored("a").unwrap(), None);
    assert!(!path.exists());
    drop(Index::open(&path, &"a".parse().unwrap()).unwrap());
    assert_eq!(stored("a").unwrap().unwrap().originals, 0);
    assert_eq!(stored("b").unwrap(), None, "the index of another run");
}

#[test]
fn an_index_survives_its_process_and_follows_another_writer() {
    let (folder, mut index, _) = filled(10);
    let mut other = index_of(&folder);
    assert_eq!(other.count(&Query::ALL, THRESHOLD), 10);
    other.apply(&[predicted(10), Change::Reopened(photo(3).candidate.photo_id)], None).unwrap();
    index.refresh().unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 10);
    other.apply(&[predicted(20)], None).unwrap();
    index.apply(&[predicted(21)], None).unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 12, "a write sees the other's, too");
    let seen = index.snapshot(|index| {
        other.apply(&[predicted(22), Change::Reopened(photo(20).candidate.photo_id)], None).unwrap();
        let mut seen = 0;
        let by_id = "id".parse().unwrap();
        let count = |_| {
            seen += 1;
            Ok::<_, IndexError>(())
        };
        index.each_face(&Query::ALL, by_id, THRESHOLD, count).unwrap();
        (seen, index.endings().unwrap()[0].photos, index.count(&Query::ALL, THRESHOLD))
    });
    assert_eq!(seen.unwrap().0, 12);
    index.refresh().unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 12);
    assert!(index.face(&photo(3).candidate.photo_id).unwrap().is_none());
    index.apply(&[predicted(11)], None).unwrap();
    drop((index, other));
    assert_eq!(index_of(&folder).count(&Query::ALL, THRESHOLD), 13);
}

#[test]
fn processes_that_make_an_index_at_the_same_time_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (folder, barrier) = (&folder, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut index = index_of(folder);
                for id in 0..50 {
                    index.apply(&[predicted(100 * number + id), predicted(7000)], None).unwrap();
                }
                index.refresh().unwrap();
                assert!(index.count(&Query::ALL, THRESHOLD) > 50);
            });
        }
    });
    assert_eq!(index_of(&folder).count(&Query::ALL, THRESHOLD), 201);
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
    let ok = faces.iter().filter(|face| face.p_ok.is_some_and(|p_ok| p_ok >= THRESHOLD)).count() as u64;
    let labels = index.count_by(Text::Label, &query, THRESHOLD);
    assert_eq!(labels.iter().map(|(_, count)| count).sum::<u64>(), ok);
    assert!(labels.is_sorted_by(|a, b| a.1 >= b.1));
    for (label, count) in &labels {
        let of_label = faces
            .iter()
            .filter(|face| face.p_ok.is_some_and(|p_ok| p_ok >= THRESHOLD) && face.label_name == *label)
            .count() as u64;
        assert_eq!(of_label, *count, "{label:?}");
    }
    let bins = index.histogram(Number::POk, (0.0, 1.0), 10, &Query::ALL, THRESHOLD);
    let scored = faces.iter().filter(|face| face.p_ok.is_some()).count() as u64;
    assert!(scored < 500);
    assert_eq!((bins.len(), bins.iter().sum::<u64>()), (10, scored));
    assert_eq!(bins[5..].iter().sum::<u64>(), ok);
    for (status_of, count) in index.count_by_status(&Query::ALL, THRESHOLD) {
        assert_eq!(faces.iter().filter(|face| status(face) == status_of).count() as u64, count, "{status_of:?}");
        assert!(count > 0, "{status_of:?}");
    }
    let split = index.ok_split(&Query::ALL, THRESHOLD);
    assert_eq!(split, OkSplit { ok, ng: scored - ok, unscored: 500 - scored });
    assert_eq!(index.count(&Query::parse("p_ok is null", FIELDS).unwrap(), THRESHOLD), split.unscored);
    assert_eq!(index.count(&Query::parse("ok=false", FIELDS).unwrap(), THRESHOLD), split.ng);
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

/// What fills an index from this ledger; the archive is in the folder.
fn source(folder: &tempfile::TempDir, ledger: &Sqlite) -> IndexSource {
    IndexSource::new(RunName::default(), Arc::new(ledger.clone()), objects(folder), None)
}

fn objects(folder: &tempfile::TempDir) -> Arc<dyn Objects> {
    Arc::new(Folder::at(folder.path()))
}

#[tokio::test]
async fn the_index_follows_the_feed_of_endings() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_of(&folder, 2345).await;
    let source = source(&folder, &ledger);
    let mut index = index_of(&folder);
    assert_eq!(source.follow(&mut index, &|_| ()).await.unwrap(), 2345);
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 2345);
    assert_eq!(source.follow(&mut index, &|_| ()).await.unwrap(), 0, "nothing is new");

    end(&ledger, 9000).await;
    let key = photo(7).key();
    ledger.reopen(&key, None, 2).await.unwrap().unwrap();
    source.follow(&mut index, &|_| ()).await.unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 2345);
    assert!(index.face(&key.photo_id).unwrap().is_none(), "it has been requeued");

    // Another process continues where this one stopped.
    drop(index);
    let mut index = index_of(&folder);
    assert_eq!(source.follow(&mut index, &|_| ()).await.unwrap(), 0);
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 2345);
}

#[tokio::test]
async fn an_index_starts_again_when_the_ledger_was_lost() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut index = index_of(&folder);
    source(&folder, &ledger_of(&folder, 30).await).follow(&mut index, &|_| ()).await.unwrap();
    // A rebuilt ledger has another epoch and other endings.
    source(&folder, &ledger_of(&other, 12).await).follow(&mut index, &|_| ()).await.unwrap();
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 12);
}

#[tokio::test]
async fn the_index_follows_the_log_of_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder, &ledger_of(&folder, 16).await);
    let mut writer = VerdictWriter::open(VerdictLog::new(objects(&folder), RunName::default()), drop).await.unwrap();
    let mut index = index_of(&folder);
    let count = |index: &Index, query: &str| index.count(&Query::parse(query, FIELDS).unwrap(), THRESHOLD);
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!(count(&index, "verdict is null"), 16);

    for id in 0..16 {
        writer.append(&verdicts(id)).await.unwrap();
    }
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!(source.judge(&mut index).await.unwrap(), 0, "each verdict is read once");
    let numbers = ["ok", "ng", "pending"].map(|status| count(&index, &format!("status={status}")));
    assert_eq!(numbers, [2, 4, 4]);
    let contested = index.verdicts_on(photo(3).facts.crop.unwrap().sha256).unwrap();
    assert!(contested.is_conflict());
    let decision = Verdict {
        replaces: contested.verdicts().iter().map(|verdict| verdict.id.clone()).collect(),
        ..verdict(3, 2, Judgement::Ok)
    };
    writer.append(&[decision]).await.unwrap();
    source.judge(&mut index).await.unwrap();
    assert_eq!(count(&index, "id='3' and status=ok and judged_by=grace"), 1);

    // What people said outlives the index, and the faces.
    drop(index);
    std::fs::remove_file(folder.path().join("index.sqlite")).unwrap();
    let mut index = index_of(&folder);
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!(count(&index, "status=ok"), 3);
    index.clear().unwrap();
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!(count(&index, "status=ok"), 3);
}

fn change(model: &str, threshold: f64) -> ClassifierChange {
    ClassifierChange {
        model_sha256: ContentHash::of(model.as_bytes()),
        model: model.into(),
        threshold,
        at: 1_700_000_000,
        by: "a test".into(),
        why: String::new(),
    }
}

/// The P(OK) of a second model for the face of a photo.
fn second(id: u64) -> Prediction {
    faces::prediction(id as f64 % 10.0 / 10.0, "second")
}

fn p_ok(index: &Index, id: u64) -> Option<f64> {
    index.face(&photo(id).candidate.photo_id).unwrap().unwrap().p_ok
}

#[tokio::test]
async fn the_predictions_are_those_of_the_runs_current_classifier() {
    const FACES: u64 = 1100;
    let folder = tempfile::tempdir().unwrap();
    let run = RunName::default();
    let ledger = ledger_of(&folder, FACES).await;
    let source = source(&folder, &ledger);
    let (classifiers, predictions) = (RunClassifiers::new(objects(&folder)), Predictions::new(objects(&folder)));
    let crop = |id| photo(id).facts.crop.unwrap().sha256;
    let ok = Query::parse("ok", FIELDS).unwrap();
    let mut index = index_of(&folder);

    classifiers.start(&run, change(faces::MODEL, 0.25)).await.unwrap();
    source.update(&mut index, &|_| ()).await.unwrap();
    let expected = (0..FACES).filter_map(|id| photo(id).facts.prediction).filter(|prediction| prediction.p_ok >= 0.25);
    assert_eq!((index.threshold(), index.count(&ok, index.threshold())), (0.25, expected.count() as u64));

    // Neither a change of the threshold nor one of the model reads the photos again: they could not be read.
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    database.call(|c| c.execute("DELETE FROM messages", [])).await.unwrap();
    for id in 0..FACES - 50 {
        predictions.write(crop(id), second(id)).await.unwrap();
    }
    // Of a crop of another run.
    predictions.write(ContentHash::of(b"foreign"), second(1)).await.unwrap();
    classifiers.change(&run, change(faces::MODEL, 0.75)).await.unwrap();
    source.update(&mut index, &|_| ()).await.unwrap();
    let expected = (0..FACES).filter_map(|id| photo(id).facts.prediction).filter(|prediction| prediction.p_ok >= 0.75);
    assert_eq!((index.threshold(), index.count(&ok, index.threshold())), (0.75, expected.count() as u64));

    classifiers.change(&run, change("second", 0.5)).await.unwrap();
    source.follow(&mut index, &|_| ()).await.unwrap();
    assert_eq!(index.unscored().unwrap().len() as u64, FACES, "none of the new model so far");
    assert_eq!(source.score(&mut index, &|_| ()).await.unwrap(), FACES - 50);
    for mut index in [index, index_of(&folder)] {
        for id in [0, 7, FACES - 51] {
            assert_eq!(p_ok(&index, id), Some(second(id).p_ok));
        }
        assert_eq!(p_ok(&index, FACES - 50), None);
        let split = index.ok_split(&Query::ALL, index.threshold());
        assert_eq!(split, OkSplit { ok: 525, ng: 525, unscored: 50 });
        assert_eq!(index.count_by(Text::Model, &Query::ALL, 0.5)[0], (Some("second".into()), 1050));
        assert_eq!(index.unrecorded(1).unwrap().0, 0);
        assert!(!index.set_classifier(&classifiers.read(&run).await.unwrap()).unwrap(), "it is the same");
    }

    // Predictions that are made later, and photos that end later.
    let mut index = index_of(&folder);
    predictions.write(crop(FACES - 1), second(FACES - 1)).await.unwrap();
    predictions.write(crop(2000), second(2000)).await.unwrap();
    end(&ledger, 2000).await;
    end(&ledger, 2001).await;
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!(p_ok(&index, FACES - 1), Some(second(FACES - 1).p_ok));
    assert_eq!((p_ok(&index, 2000), p_ok(&index, 2001)), (Some(second(2000).p_ok), None));
}

#[test]
fn predictions_of_another_model_than_the_runs_are_left_out() {
    let (_folder, mut index, _) = filled(2);
    let history = ClassifierHistory { changes: vec![change("second", 0.5)] };
    assert!(index.set_classifier(&history).unwrap());
    let keys: Vec<i64> = index.unscored().unwrap().into_iter().map(|(key, _)| key).collect();
    let late = faces::prediction(0.9, faces::MODEL);
    index.add_predictions(&[(keys[0], late), (keys[1], second(3)), (99, second(4))]).unwrap();
    index.apply(&[predicted(2)], None).unwrap();
    assert_eq!((p_ok(&index, 0), p_ok(&index, 1), p_ok(&index, 2)), (None, Some(0.3), None));
}

#[tokio::test]
async fn photos_that_ended_without_a_record_are_counted_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_of(&folder, 9).await;
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    database.call(|c| c.execute("DELETE FROM messages WHERE id IN ('3', '5')", [])).await.unwrap();
    let records = Records::new(objects(&folder));
    let source =
        IndexSource::new(RunName::default(), Arc::new(ledger.clone()), objects(&folder), Some(records.clone()));
    let mut index = index_of(&folder);
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!(index.unrecorded(1).unwrap(), (2, vec![3.into()]));
    assert_eq!(index.count(&Query::ALL, THRESHOLD), 7);
    assert_eq!(index.endings().unwrap().iter().map(|count| count.photos).sum::<u64>(), 9);

    let Change::Ended(record) = predicted(3) else { unreachable!() };
    records.write(&record).await.unwrap();
    ledger.reopen(&photo(5).key(), Some(&record.message), 2).await.unwrap();
    source.update(&mut index, &|_| ()).await.unwrap();
    assert_eq!((index.unrecorded(1).unwrap().0, index.count(&Query::ALL, THRESHOLD)), (1, 8));
}

#[tokio::test]
async fn an_index_of_a_run_on_servers_reads_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(RedisServer::shared().ledger());
    let run: RunName = "dataset-servers".parse().unwrap();
    let records = Records::new(objects(&folder));
    let end = async |id: u64| {
        let Change::Ended(mut record) = predicted(id) else { unreachable!() };
        record.message.photo.run = run.clone();
        records.write(&record).await.unwrap();
        assert!(ledger.restore(&record.message, Ending::Predicted, None).await.unwrap());
    };
    let source = IndexSource::new(run.clone(), ledger.clone(), objects(&folder), Some(records.clone()));
    let path = folder.path().join("index.sqlite");
    for id in 0..30 {
        end(id).await;
    }
    let mut index = Index::open(&path, &run).unwrap();
    source.update(&mut index, &|_| ()).await.unwrap();
    drop(index);

    std::fs::remove_dir_all(folder.path().join("records")).unwrap();
    end(30).await;
    let mut index = Index::open(&path, &run).unwrap();
    assert_eq!(source.follow(&mut index, &|_| ()).await.unwrap(), 1);
    assert_eq!((index.count(&Query::ALL, THRESHOLD), index.unrecorded(1).unwrap().0), (31, 0));
    // One that is made anew finds that the others are gone.
    let mut again = Index::open(&folder.path().join("again.sqlite"), &run).unwrap();
    source.update(&mut again, &|_| ()).await.unwrap();
    assert_eq!((again.count(&Query::ALL, THRESHOLD), again.unrecorded(1).unwrap().0), (1, 30));
}
