//! Lists: which faces a person goes through, as they were when the list was opened, and in which order.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use ring::rand::{SecureRandom, SystemRandom};

use super::error::ApiError;
use crate::dataset::face::{DUPLICATE, Number, STATUS};
use crate::dataset::page::{Order, UnknownSort};
use crate::dataset::{Cursor, Direction, Index, Query, Rows, Sort};
use crate::domain::{Selection, View};

/// The order of a list: a sort of the query language, `random` or `suggested`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOrder {
    Random,
    Suggested,
    By(Order),
}

impl FromStr for ListOrder {
    type Err = UnknownSort;

    fn from_str(text: &str) -> Result<Self, UnknownSort> {
        match text {
            "random" => Ok(Self::Random),
            "suggested" => Ok(Self::Suggested),
            _ => text.parse().map(Self::By),
        }
    }
}

impl ListOrder {
    /// How faces in this order are chosen, if the query is about nothing but their status.
    fn selection(self) -> Selection {
        match self {
            Self::Random => Selection::Random,
            Self::Suggested => Selection::Suggested,
            Self::By(Order { sort: Sort::By(Number::POk), .. }) => Selection::BestFirst,
            Self::By(Order { sort: Sort::Uncertainty, direction: Direction::Ascending }) => Selection::Uncertain,
            Self::By(_) => Selection::Filter,
        }
    }

    /// `suggested`: the number of the suggested order.
    fn order(self, seed: u64, suggested: u64) -> Order {
        match self {
            Self::Random => Order { sort: Sort::Random(seed), direction: Direction::Ascending },
            Self::Suggested => Order { sort: Sort::Suggested(suggested), direction: Direction::Ascending },
            Self::By(order) => order,
        }
    }
}

/// A place in a list. As text it is opaque, and safe in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor {
    /// How many entries lie before it.
    pub number: u64,
    /// Determines a random order, and which entries are random faces or repeats.
    pub seed: u64,
    /// The place in the order of the list.
    pub place: Option<Cursor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor of a list")]
pub struct BadListCursor;

impl fmt::Display for ListCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.", self.number, self.seed)?;
        self.place.iter().try_for_each(|place| place.fmt(f))
    }
}

impl FromStr for ListCursor {
    type Err = BadListCursor;

    fn from_str(text: &str) -> Result<Self, BadListCursor> {
        let mut parts = text.splitn(3, '.');
        let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
        let (number, seed) = hex().zip(hex()).ok_or(BadListCursor)?;
        let place = match parts.next().ok_or(BadListCursor)? {
            "" => None,
            place => Some(place.parse().map_err(|_| BadListCursor)?),
        };
        Ok(Self { number, seed, place })
    }
}

/// A list of one person.
#[derive(Debug)]
pub struct List {
    pub person: String,
    /// The generation of the index in which the rows have their numbers.
    generation: u64,
    pub rows: Rows,
    /// The rows that nobody had judged.
    pub unjudged: Rows,
    pub order: Order,
    pub threshold: f64,
    /// How the list chooses faces, as a person is told.
    pub selection: Selection,
    /// The same for a verdict on a face in the order of the list. It is `filter` where the faces are random, but not of all
    /// that nobody has judged: such a sample says nothing of the others.
    pub recorded: Selection,
    pub view: View,
    pub seed: u64,
    /// Rows that were shown as random faces. They do not come again in the order of the list.
    pub shown: Rows,
    /// The rows of the random faces, by the numbers of their entries: who reads entries again gets the same ones.
    pub random: HashMap<u64, usize>,
    /// The faces that were shown as repeats, by their keys.
    pub repeated: HashSet<i64>,
}

impl List {
    /// `seed`: that of the list that this one goes on with.
    pub fn open(index: &Index, query: &Query, order: ListOrder, view: View, person: &str, seed: u64) -> Self {
        let threshold = index.threshold();
        let mut rows = index.rows(query, threshold);
        if has_cards_of_groups(query, order, view) {
            let duplicates = index.duplicates_among(&rows);
            rows = rows.minus(&duplicates);
        }
        let unjudged = index.unjudged(&rows);
        let is_filter = query.names_other_than(STATUS.name);
        let selection = if is_filter { Selection::Filter } else { order.selection() };
        let has_all = || index.all_unjudged().minus(&unjudged).count() == 0;
        let recorded = match selection {
            Selection::Random if !has_all() => Selection::Filter,
            selection => selection,
        };
        Self {
            person: person.to_owned(),
            generation: index.generation(),
            rows,
            unjudged,
            order: order.order(seed, index.suggested()),
            threshold,
            selection,
            recorded,
            view,
            seed,
            shown: Rows::default(),
            random: HashMap::new(),
            repeated: HashSet::new(),
        }
    }

    /// Whether the rows have the numbers that they had when the list was opened.
    pub fn fits(&self, index: &Index) -> bool {
        self.generation == index.generation()
    }
}

/// Whether a group of near-duplicates is one card. A random order is a sample of all faces; a person who asks for
/// duplicates wants to see them.
fn has_cards_of_groups(query: &Query, order: ListOrder, view: View) -> bool {
    view == View::Grid && order != ListOrder::Random && !query.names(DUPLICATE)
}

/// The lists that are open. Those that were not used for longest are forgotten when there are too many: a client then
/// opens its list again.
#[derive(Default)]
pub struct Lists {
    lists: HashMap<String, OpenList>,
    uses: u64,
}

struct OpenList {
    list: Arc<Mutex<List>>,
    person: String,
    used: u64,
}

impl Lists {
    /// A list takes up to 3 bits for each face of the run, and some 30 bytes for each random face that was shown.
    const MOST: usize = 128;
    const MOST_OF_PERSON: usize = 16;

    /// Adds a list and returns its id.
    pub fn add(&mut self, list: List) -> Result<String, ApiError> {
        let of_person = self.lists.values().filter(|open| open.person == list.person).count();
        let person = list.person.clone();
        if of_person >= Self::MOST_OF_PERSON {
            self.forget_oldest(|open| open.person == person);
        } else if self.lists.len() >= Self::MOST {
            self.forget_oldest(|_| true);
        }
        let id = format!("{:016x}{:016x}", random()?, random()?);
        self.uses += 1;
        let open = OpenList { list: Arc::new(Mutex::new(list)), person, used: self.uses };
        self.lists.insert(id.clone(), open);
        Ok(id)
    }

    fn forget_oldest(&mut self, of: impl Fn(&OpenList) -> bool) {
        let oldest = self.lists.iter().filter(|(_, open)| of(open)).min_by_key(|(_, open)| open.used);
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.lists.remove(&id);
        }
    }

    /// The list of a person.
    ///
    /// # Errors
    /// 410: there is no such list, or no longer.
    pub fn get(&mut self, id: &str, person: &str) -> Result<Arc<Mutex<List>>, ApiError> {
        self.uses += 1;
        let open = self.lists.get_mut(id).filter(|open| open.person == person).ok_or_else(unknown_list)?;
        open.used = self.uses;
        Ok(open.list.clone())
    }
}

pub fn unknown_list() -> ApiError {
    ApiError::gone("the list is not known any more: open it again, with the last cursor as `after`")
}

/// A random number.
pub fn random() -> Result<u64, ApiError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ApiError::internal("the system gives no random numbers"))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::face::FIELDS;
    use crate::domain::RunName;

    #[test]
    fn cursors_round_trip() {
        for place in [None, Some("00000000000000ff41")] {
            let cursor = ListCursor { number: 300, seed: u64::MAX, place: place.map(|place| place.parse().unwrap()) };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "1", "1.2", "x.1.", "1.2.zz", "1.2.00ff"] {
            assert_eq!(bad.parse::<ListCursor>(), Err(BadListCursor), "{bad}");
        }
    }

    #[test]
    fn the_order_and_the_query_say_how_faces_are_chosen() {
        let index = Index::open(":memory:".as_ref(), &RunName::default()).unwrap();
        let selection = |query: &str, order: &str| {
            let query = Query::parse(query, FIELDS).unwrap();
            List::open(&index, &query, order.parse().unwrap(), View::Single, "ada", 1).selection
        };
        assert_eq!(selection("status=ready", "random"), Selection::Random);
        assert_eq!(selection("status in (ready, predicted)", "-p_ok"), Selection::BestFirst);
        assert_eq!(selection("", "p_ok"), Selection::BestFirst);
        assert_eq!(selection("not status=ok", "uncertainty"), Selection::Uncertain);
        assert_eq!(selection("status=ready", "suggested"), Selection::Suggested);
        for (query, order) in [
            ("", "-uncertainty"),
            ("", "-size"),
            ("size>=512", "random"),
            ("size>=512", "suggested"),
            ("status=ready or ok", "-p_ok"),
        ] {
            assert_eq!(selection(query, order), Selection::Filter, "{query} {order}");
        }
        assert!("moon".parse::<ListOrder>().is_err());
    }

    #[test]
    fn lists_are_bounded_and_belong_to_a_person() {
        let index = Index::open(":memory:".as_ref(), &RunName::default()).unwrap();
        let list = |person: &str| List::open(&index, &Query::ALL, ListOrder::Random, View::Single, person, 1);
        let mut lists = Lists::default();
        let first = lists.add(list("ada")).unwrap();
        let other = lists.add(list("grace")).unwrap();
        let second = lists.add(list("ada")).unwrap();
        assert_eq!(lists.get(&first, "grace").unwrap_err().status, 410);
        assert!(lists.get(&first, "ada").is_ok());
        for _ in 2..=Lists::MOST_OF_PERSON {
            lists.add(list("ada")).unwrap();
        }
        assert!(lists.get(&second, "ada").is_err(), "it was not used for longest");
        assert!(lists.get(&first, "ada").is_ok() && lists.get(&other, "grace").is_ok());
        for number in 0..2 * Lists::MOST {
            lists.add(list(&format!("p{number}"))).unwrap();
        }
        assert_eq!(lists.lists.len(), Lists::MOST);
    }
}
