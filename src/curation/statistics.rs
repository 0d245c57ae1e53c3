//! How much people judge, and how far they agree with themselves.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use super::access::Person;
use super::error::{ApiError, json_response};
use super::request::Params;
use super::state::Shared;
use crate::dataset::interval::EstimatedShare;
use crate::dataset::ok_left::OkLeft;
use crate::dataset::verdict_history::{Agreement, VerdictHour};
use crate::dataset::{FaceStatus, IndexError, Query};
use crate::domain::calendar;
use crate::domain::clock::now;

const SECONDS_AN_HOUR: u64 = 3600;
const HOURS: u64 = 48;
const DAYS: u64 = 366;

#[derive(Serialize)]
struct Statistics {
    /// The last year, by days in UTC.
    by_day: Vec<DayCount>,
    /// The last two days.
    by_hour: Vec<HourCount>,
    by_person: Vec<PersonCount>,
    agreement: Vec<AgreementShare>,
    ok_left: OkLeft,
    /// Faces of the run, and OK ones that are still wanted.
    total: u64,
    left: u64,
    /// Faces that look like the person of another label; none before the first search for identities.
    wrong_persons: Option<u64>,
}

#[derive(Serialize)]
struct DayCount {
    /// `2026-11-28`.
    day: String,
    person: String,
    /// Judged singly or in the grid, and in bulk. Undos do not count.
    verdicts: u64,
    in_bulk: u64,
}

#[derive(Serialize)]
struct HourCount {
    /// Milliseconds since 1970 of its start.
    hour: u64,
    person: String,
    verdicts: u64,
    in_bulk: u64,
}

#[derive(Serialize)]
struct PersonCount {
    person: String,
    verdicts: u64,
    in_bulk: u64,
}

#[derive(Serialize)]
struct AgreementShare {
    person: String,
    /// Pictures that the person judged twice, and those judged alike.
    pairs: u64,
    same: u64,
    #[serde(flatten)]
    share: EstimatedShare,
}

pub async fn statistics(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let read = shared.index.with(|index| {
        let counts = index.status_counts(&Query::ALL, index.threshold());
        let wrong_persons = index.identities_version()?.map(|_| index.suspects().len() as u64);
        Ok::<_, IndexError>((index.verdict_hours(0)?, index.agreements()?, index.ok_left()?, counts, wrong_persons))
    });
    let (hours, agreements, ok_left, counts, wrong_persons) = read.await?;
    let this_hour = now().as_secs() / SECONDS_AN_HOUR;
    let statistics = Statistics {
        by_day: by_day(&hours, this_hour),
        by_hour: by_hour(&hours, this_hour),
        by_person: by_person(&hours),
        agreement: agreements.into_iter().filter_map(agreement).collect(),
        ok_left,
        total: counts.total(),
        left: shared.wanted.saturating_sub(counts.all[FaceStatus::Ok as usize]),
        wrong_persons,
    };
    Ok(json_response(StatusCode::OK, &statistics))
}

fn by_day(hours: &[VerdictHour], this_hour: u64) -> Vec<DayCount> {
    let mut days: BTreeMap<(u64, &str), (u64, u64)> = BTreeMap::new();
    for hour in hours.iter().filter(|hour| hour.hour + 24 * DAYS > this_hour) {
        let (verdicts, in_bulk) = days.entry((hour.hour / 24, &hour.person)).or_default();
        *verdicts += hour.verdicts;
        *in_bulk += hour.in_bulk;
    }
    let day = |((day, person), (verdicts, in_bulk)): ((u64, &str), _)| DayCount {
        day: calendar::day(day * 24 * SECONDS_AN_HOUR),
        person: person.to_owned(),
        verdicts,
        in_bulk,
    };
    days.into_iter().map(day).collect()
}

fn by_hour(hours: &[VerdictHour], this_hour: u64) -> Vec<HourCount> {
    let recent = hours.iter().filter(|hour| hour.hour + HOURS > this_hour);
    let count = |hour: &VerdictHour| HourCount {
        hour: hour.hour * SECONDS_AN_HOUR * 1000,
        person: hour.person.clone(),
        verdicts: hour.verdicts,
        in_bulk: hour.in_bulk,
    };
    recent.map(count).collect()
}

fn by_person(hours: &[VerdictHour]) -> Vec<PersonCount> {
    let mut people: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for hour in hours {
        let (verdicts, in_bulk) = people.entry(&hour.person).or_default();
        *verdicts += hour.verdicts;
        *in_bulk += hour.in_bulk;
    }
    let count = |(person, (verdicts, in_bulk)): (&str, _)| PersonCount { person: person.to_owned(), verdicts, in_bulk };
    people.into_iter().map(count).collect()
}

fn agreement(of: Agreement) -> Option<AgreementShare> {
    let Agreement { person, pairs, same } = of;
    EstimatedShare::of(same, pairs).map(|share| AgreementShare { person, pairs, same, share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_summed_up_by_day_and_person() {
        let hour = |hour, person: &str, verdicts| VerdictHour { hour, person: person.into(), verdicts, in_bulk: 1 };
        // 2026-11-28 01:00 UTC is hour 498841.
        let now = 498_841;
        let hours = [
            hour(now - 24 * DAYS, "ada", 5),
            hour(now - 26, "ada", 1),
            hour(now - 25, "ada", 2),
            hour(now - 1, "ada", 3),
            hour(now, "ada", 4),
            hour(now, "grace", 7),
        ];
        let days: Vec<_> =
            by_day(&hours, now).into_iter().map(|day| (day.day, day.person, day.verdicts, day.in_bulk)).collect();
        let day = |day: &str, person: &str, verdicts, in_bulk| (day.into(), person.into(), verdicts, in_bulk);
        let expected = [day("2026-11-26", "ada", 1, 1), day("2026-11-27", "ada", 2, 1), day("2026-11-28", "ada", 7, 2)];
        assert_eq!(days[..2], expected[..2]);
        assert_eq!(days[2..], [expected[2].clone(), day("2026-11-28", "grace", 7, 1)]);
        assert_eq!(by_hour(&hours, now).len(), 5);
        assert_eq!(by_hour(&hours, now)[4].hour, now * 3_600_000);
        let people: Vec<_> = by_person(&hours).into_iter().map(|one| (one.person, one.verdicts)).collect();
        assert_eq!(people, [("ada".to_owned(), 15), ("grace".to_owned(), 7)]);
    }
}
