//! Suggested orders: which unjudged faces come first, computed elsewhere and kept in memory.
//!
//! To compute an order takes seconds, so nobody waits for it: it is computed once for each model, and a list looks the
//! places up. It names the first faces only; the others follow by a rule.

use std::collections::VecDeque;

/// Of a thousand faces in an order that is not by filter, so many are random unjudged faces.
pub const RANDOM_SHARE: u64 = 100;

/// How the faces follow that a suggested order does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// By the distance of P(OK) from the threshold.
    Uncertain,
    #[default]
    Random,
}

#[derive(Debug, Default)]
struct SuggestedOrder {
    number: u64,
    /// The keys of faces with their places, by key.
    places: Vec<(i64, u32)>,
    rest: Rest,
}

/// The last few suggested orders. A list keeps the order that it was opened with, also where another is made meanwhile.
#[derive(Debug, Default)]
pub struct SuggestedOrders {
    orders: VecDeque<SuggestedOrder>,
    made: u64,
}

impl SuggestedOrders {
    const KEPT: usize = 8;

    /// Adds an order of faces by their keys, and returns its number.
    pub fn add(&mut self, keys: &[i64], rest: Rest) -> u64 {
        self.made += 1;
        let mut places: Vec<(i64, u32)> = keys.iter().zip(0..).map(|(key, place)| (*key, place)).collect();
        places.sort_unstable();
        places.dedup_by_key(|(key, _)| *key);
        self.orders.push_back(SuggestedOrder { number: self.made, places, rest });
        if self.orders.len() > Self::KEPT {
            self.orders.pop_front();
        }
        self.made
    }

    /// The number of the last order; 0 if there is none.
    pub fn latest(&self) -> u64 {
        self.made
    }

    /// The keys that the last order names.
    pub fn keys(&self) -> impl Iterator<Item = i64> + '_ {
        self.orders.back().into_iter().flat_map(|order| order.places.iter().map(|(key, _)| *key))
    }

    /// The place of a face in the order of this number, or in the last one if that is not kept any more. Otherwise, how
    /// the face follows those that have a place.
    pub fn place(&self, number: u64, key: i64) -> Result<u32, Rest> {
        let order = self.orders.iter().find(|order| order.number == number).or(self.orders.back());
        let Some(order) = order else { return Err(Rest::default()) };
        let found = order.places.binary_search_by_key(&key, |(key, _)| *key);
        found.map(|at| order.places[at].1).map_err(|_| order.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_kept_while_others_are_made_and_their_number_is_bounded() {
        let mut orders = SuggestedOrders::default();
        assert_eq!((orders.latest(), orders.place(0, 7)), (0, Err(Rest::Random)));
        let first = orders.add(&[7, 3, 7], Rest::Uncertain);
        let second = orders.add(&[3], Rest::Random);
        assert_eq!([7, 3].map(|key| orders.place(first, key)), [Ok(0), Ok(1)]);
        assert_eq!(orders.place(first, 4), Err(Rest::Uncertain));
        assert_eq!((orders.place(second, 3), orders.place(second, 7)), (Ok(0), Err(Rest::Random)));
        assert_eq!(orders.keys().collect::<Vec<_>>(), [3]);
        (0..2 * SuggestedOrders::KEPT as i64).for_each(|key| assert!(orders.add(&[key], Rest::Random) > 0));
        assert_eq!(orders.orders.len(), SuggestedOrders::KEPT);
        assert_eq!(
            orders.place(first, orders.made as i64 - 3),
            Ok(0),
            "the last order takes the place of a forgotten one"
        );
    }
}
