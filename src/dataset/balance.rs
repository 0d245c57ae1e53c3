//! Balance: how faces are spread over labels, poses, sizes, sources and years, and what caps would do to that.

use std::collections::HashMap;

use serde::Serialize;

use super::caps::{CappedFaces, Caps};
use super::columns::Columns;
use super::face::{Face, Number, Text};
use super::index::Index;
use super::page::{Order, sorted};
use super::query::Query;
use super::rows;
use super::selection::label_of;
use crate::domain::calendar;

/// What a grouping has for faces without a label, host or source.
const NONE: &str = "(none)";
const UNKNOWN: &str = "unknown";

/// The poses by the field `yaw`: from profile to the left of the picture to profile to the right.
const POSES: [&str; 6] = ["profile-left", "turned-left", "frontal", "turned-right", "profile-right", "unmeasured"];
/// The yaw at which each pose after the first one begins.
const YAWS: [f32; 4] = [-0.5, -0.2, 0.2, 0.5];
/// The sizes of crops in pixels, and where each one after the first begins.
const SIZES: [&str; 5] = ["0-255", "256-511", "512-1023", "1024-2047", "2048+"];
const LEAST_SIZES: [f32; 4] = [256.0, 512.0, 1024.0, 2048.0];
/// Years that are listed.
const MOST_YEARS: usize = 60;

/// How faces are spread, and how those are that caps leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    pub faces: u64,
    /// How many the caps leave; none without caps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    pub groupings: Vec<Grouping>,
    /// What single caps of usual sizes would do.
    pub caps: Vec<CapEffect>,
}

/// The faces by one of their properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grouping {
    pub by: &'static str,
    /// How many different values the faces have.
    pub values: u64,
    pub shares: Vec<BalanceShare>,
    /// The values that are not listed, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<BalanceShare>,
}

/// The faces with one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BalanceShare {
    pub name: String,
    pub faces: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// What a cap would do if it were the only one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapEffect {
    /// `label` or `identity`.
    pub of: &'static str,
    pub limit: u64,
    /// Faces that are left.
    pub left: u64,
    /// Labels or identities that lose faces.
    pub cut: u64,
}

/// What is counted of a face.
#[derive(Debug, Clone, Copy)]
pub struct BalancedFace<'a> {
    label: &'a str,
    yaw: f32,
    size: f32,
    host: Option<&'a str>,
    source: Option<&'a str>,
    /// Seconds since 1970.
    published: Option<i64>,
    identity: Option<u32>,
}

impl<'a> BalancedFace<'a> {
    /// `host`: that of the face.
    pub fn of(face: &'a Face, host: &'a str) -> Self {
        Self {
            label: label_of(face),
            yaw: Number::Yaw.of(face),
            size: Number::Size.of(face),
            host: Some(host),
            source: face.source.as_deref(),
            published: rows::published(face.posted_at.as_deref()),
            identity: face.identity,
        }
    }

    pub fn without_identity(self) -> Self {
        Self { identity: None, ..self }
    }

    fn of_row(columns: &'a Columns, row: usize) -> Self {
        let identity = columns.number(Number::Identity, row);
        Self {
            label: columns.label_name(columns.label(row)),
            yaw: columns.number(Number::Yaw, row),
            size: columns.number(Number::Size, row),
            host: columns.text(Text::Host).value(row),
            source: columns.text(Text::Source).value(row),
            published: Some(columns.published(row)).filter(|published| *published != i64::MIN),
            identity: (!identity.is_nan()).then_some(identity as u32),
        }
    }

    fn pose(self) -> &'static str {
        let at = if self.yaw.is_nan() { 5 } else { YAWS.iter().filter(|least| self.yaw >= **least).count() };
        POSES[at]
    }

    fn size(self) -> &'static str {
        SIZES[LEAST_SIZES.iter().filter(|least| self.size >= **least).count()]
    }
}

/// Faces, and those of them that the caps leave.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    faces: u64,
    left: u64,
}

impl Count {
    fn add(&mut self, is_left: bool) {
        self.faces += 1;
        self.left += u64::from(is_left);
    }
}

type Counts = HashMap<String, Count>;

fn count(counts: &mut Counts, name: &str, is_left: bool) {
    match counts.get_mut(name) {
        Some(count) => count.add(is_left),
        None => counts.entry(name.to_owned()).or_default().add(is_left),
    }
}

fn named(name: Option<&str>) -> &str {
    name.filter(|name| !name.is_empty()).unwrap_or(NONE)
}

/// Counts faces one after the other.
#[derive(Debug, Default)]
pub struct BalanceCounter {
    all: Count,
    labels: Counts,
    poses: Counts,
    sizes: Counts,
    hosts: Counts,
    sources: Counts,
    years: HashMap<Option<i32>, Count>,
    identities: HashMap<u32, Count>,
}

impl BalanceCounter {
    /// `is_left`: whether the caps leave it.
    pub fn add(&mut self, face: BalancedFace<'_>, is_left: bool) {
        self.all.add(is_left);
        count(&mut self.labels, named(Some(face.label)), is_left);
        count(&mut self.poses, face.pose(), is_left);
        count(&mut self.sizes, face.size(), is_left);
        count(&mut self.hosts, named(face.host), is_left);
        count(&mut self.sources, named(face.source), is_left);
        self.years.entry(face.published.map(calendar::year)).or_default().add(is_left);
        if let Some(identity) = face.identity {
            self.identities.entry(identity).or_default().add(is_left);
        }
    }

    /// `with_caps`: whether some faces may be beyond a cap. `named`: how many labels, hosts and sources are listed.
    pub fn finish(self, with_caps: bool, named: usize) -> Balance {
        let mut caps = cap_effects("label", self.labels.values().copied(), self.all.faces);
        caps.extend(cap_effects("identity", self.identities.values().copied(), self.all.faces));
        let list = Listing { with_caps };
        let mut groupings = vec![
            list.most("label", self.labels, named),
            list.given("pose", &POSES, &self.poses),
            list.given("size", &SIZES, &self.sizes),
            list.most("host", self.hosts, named),
        ];
        // One source says nothing.
        if self.sources.len() > 1 {
            groupings.push(list.most("source", self.sources, named));
        }
        groupings.push(list.years(self.years));
        Balance { faces: self.all.faces, left: with_caps.then_some(self.all.left), groupings, caps }
    }
}

struct Listing {
    with_caps: bool,
}

impl Listing {
    fn share(&self, name: String, count: Count) -> BalanceShare {
        BalanceShare { name, faces: count.faces, left: self.with_caps.then_some(count.left) }
    }

    /// The most frequent, and the sum of the others.
    fn most(&self, by: &'static str, counts: Counts, named: usize) -> Grouping {
        let values = counts.len() as u64;
        let mut shares: Vec<BalanceShare> = counts.into_iter().map(|(name, count)| self.share(name, count)).collect();
        shares.sort_unstable_by(|a, b| b.faces.cmp(&a.faces).then_with(|| a.name.cmp(&b.name)));
        let others = self.others(shares.split_off(named.min(shares.len())));
        Grouping { by, values, shares, others }
    }

    fn others(&self, rest: Vec<BalanceShare>) -> Option<BalanceShare> {
        let sum = rest.iter().fold(Count::default(), |sum, share| Count {
            faces: sum.faces + share.faces,
            left: sum.left + share.left.unwrap_or(0),
        });
        (!rest.is_empty()).then(|| self.share(format!("{} others", rest.len()), sum))
    }

    /// The given values in their order, those that there are.
    fn given(&self, by: &'static str, names: &[&str], counts: &Counts) -> Grouping {
        let share = |name: &&str| Some(self.share((*name).to_owned(), *counts.get(*name)?));
        Grouping { by, values: counts.len() as u64, shares: names.iter().filter_map(share).collect(), others: None }
    }

    /// The last years in order, and the sum of those before.
    fn years(&self, counts: HashMap<Option<i32>, Count>) -> Grouping {
        let values = counts.len() as u64;
        let mut years: Vec<(Option<i32>, Count)> = counts.into_iter().collect();
        // The unknown one comes first, and so is last in the other direction.
        years.sort_unstable_by_key(|(year, _)| std::cmp::Reverse(*year));
        let name = |year: Option<i32>| year.map_or_else(|| UNKNOWN.to_owned(), |year| year.to_string());
        let mut shares: Vec<BalanceShare> =
            years.into_iter().map(|(year, count)| self.share(name(year), count)).collect();
        let others = self.others(shares.split_off(MOST_YEARS.min(shares.len())));
        Grouping { by: "year", values, shares, others }
    }
}

/// What caps of usual sizes would do, up to the first one that changes nothing.
fn cap_effects(of: &'static str, counts: impl Iterator<Item = Count> + Clone, faces: u64) -> Vec<CapEffect> {
    let most = counts.clone().map(|count| count.faces).max().unwrap_or(0);
    let limits = (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10u64.saturating_pow(power)));
    let effect = |limit: u64| {
        let beyond = counts.clone().map(|count| count.faces.saturating_sub(limit));
        let (lost, cut) = beyond.fold((0, 0), |(lost, cut), beyond| (lost + beyond, cut + u64::from(beyond > 0)));
        CapEffect { of, limit, left: faces - lost, cut }
    };
    limits.take_while(|limit| *limit < most).map(effect).collect()
}

impl Index {
    /// How the faces of a query are spread, and how those are that the caps leave: the first ones in the order. `named`:
    /// how many labels, hosts and sources are listed.
    pub fn balance(&self, query: &Query, threshold: f64, order: Order, caps: Caps, named: usize) -> Balance {
        let columns = &self.columns;
        let found = columns.matching(query, threshold);
        let mut counter = BalanceCounter::default();
        if caps.are_given() {
            let mut taken = CappedFaces::new(caps);
            for row in sorted(columns, &found, order, threshold) {
                let face = BalancedFace::of_row(columns, row);
                counter.add(face, taken.take(columns.label(row), face.identity).is_ok());
            }
        } else {
            found.each(|row| counter.add(BalancedFace::of_row(columns, row), true));
        }
        counter.finish(caps.are_given(), named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(label: &str, published: Option<i64>) -> BalancedFace<'_> {
        let host = Some("photos.example");
        BalancedFace { label, yaw: 0.0, size: 512.0, host, source: None, published, identity: None }
    }

    fn names(grouping: &Grouping) -> Vec<(&str, u64)> {
        grouping.shares.iter().map(|share| (share.name.as_str(), share.faces)).collect()
    }

    fn grouping<'a>(balance: &'a Balance, by: &str) -> &'a Grouping {
        balance.groupings.iter().find(|grouping| grouping.by == by).unwrap()
    }

    #[test]
    fn faces_are_spread_over_what_they_have() {
        let mut counter = BalanceCounter::default();
        for (label, year) in [("b", 2015), ("a", 2015), ("b", 2016), ("", 1969)] {
            counter.add(face(label, Some((year - 1970) * 31_556_952 + 86_400 * 40)), true);
        }
        counter.add(BalancedFace { yaw: -0.6, size: 255.0, ..face("c", None) }, true);
        counter.add(BalancedFace { yaw: f32::NAN, size: 4000.0, ..face("c", None) }, true);
        let balance = counter.finish(false, 2);
        assert_eq!((balance.faces, balance.left), (6, None));
        let labels = grouping(&balance, "label");
        assert_eq!((names(labels), labels.values), (vec![("b", 2), ("c", 2)], 4));
        assert_eq!(labels.others.as_ref().map(|others| (others.name.as_str(), others.faces)), Some(("2 others", 2)));
        assert_eq!(names(grouping(&balance, "pose")), [("profile-left", 1), ("frontal", 4), ("unmeasured", 1)]);
        assert_eq!(names(grouping(&balance, "size")), [("0-255", 1), ("512-1023", 4), ("2048+", 1)]);
        let years = [("2016", 1), ("2015", 2), ("1969", 1), ("unknown", 2)];
        assert_eq!(names(grouping(&balance, "year")), years);
        assert!(balance.groupings.iter().all(|grouping| grouping.by != "source"), "there is none");
    }

    #[test]
    fn a_cap_takes_from_the_largest() {
        let mut counter = BalanceCounter::default();
        for at in 0..12 {
            let of_identity = (at < 6).then_some(7);
            counter.add(BalancedFace { identity: of_identity, ..face(if at < 9 { "a" } else { "b" }, None) }, at < 3);
        }
        let balance = counter.finish(true, 9);
        let left: Vec<_> = grouping(&balance, "label").shares.iter().map(|share| share.left).collect();
        assert_eq!((balance.left, left), (Some(3), vec![Some(3), Some(0)]));
        let effects: Vec<_> =
            balance.caps.iter().map(|effect| (effect.of, effect.limit, effect.left, effect.cut)).collect();
        let of_labels = [("label", 1, 2, 2), ("label", 2, 4, 2), ("label", 5, 8, 1)];
        let of_identities = [("identity", 1, 7, 1), ("identity", 2, 8, 1), ("identity", 5, 11, 1)];
        assert_eq!(effects, [of_labels, of_identities].concat());
    }
}
