//! Groups of items that pairs connect, except where a person has parted them.

use std::collections::{HashMap, HashSet};

use super::parents::Parents;

/// Disjoint sets of items, which are numbered from 0; the smaller one joins the larger.
pub struct Groups {
    parents: Parents,
    /// The next item of the same group, in a circle.
    next: Vec<u32>,
    sizes: Vec<u32>,
    /// Items that must not be in one group, from both sides.
    apart: HashMap<u32, HashSet<u32>>,
}

impl Groups {
    /// `count` items, each in a group of its own.
    pub fn new(count: u32) -> Self {
        Self {
            parents: Parents::new(count),
            next: (0..count).collect(),
            sizes: vec![1; count as usize],
            apart: HashMap::new(),
        }
    }

    /// From now on, no joining brings the two into one group.
    pub fn keep_apart(&mut self, a: u32, b: u32) {
        if a != b {
            self.apart.entry(a).or_default().insert(b);
            self.apart.entry(b).or_default().insert(a);
        }
    }

    /// Makes the groups of two items one. False: they are kept apart, or are one already.
    pub fn join(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.parents.root(a), self.parents.root(b));
        if a == b || !self.may_join(a, b) {
            return false;
        }
        let (large, small) = if self.sizes[a as usize] >= self.sizes[b as usize] { (a, b) } else { (b, a) };
        self.parents.attach(small, large);
        self.sizes[large as usize] += self.sizes[small as usize];
        // Two circles become one when an item of each changes its successor with the other.
        self.next.swap(large as usize, small as usize);
        true
    }

    /// All groups of two items and more, in the order of their first items.
    pub fn all(mut self) -> Vec<Vec<u32>> {
        let mut groups: HashMap<u32, Vec<u32>> = HashMap::new();
        for item in self.parents.items() {
            let root = self.parents.root(item);
            if self.sizes[root as usize] > 1 {
                groups.entry(root).or_default().push(item);
            }
        }
        let mut groups: Vec<Vec<u32>> = groups.into_values().collect();
        groups.sort_unstable();
        groups
    }

    fn may_join(&mut self, a: u32, b: u32) -> bool {
        if self.apart.is_empty() {
            return true;
        }
        let smaller = if self.sizes[a as usize] <= self.sizes[b as usize] { a } else { b };
        let other = if smaller == a { b } else { a };
        let mut item = smaller;
        loop {
            let apart: Vec<u32> = self.apart.get(&item).into_iter().flatten().copied().collect();
            if apart.into_iter().any(|kept| self.parents.root(kept) == other) {
                return false;
            }
            item = self.next[item as usize];
            if item == smaller {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_groups() {
        let mut groups = Groups::new(7);
        assert!(groups.join(5, 1) && groups.join(2, 3) && groups.join(3, 5));
        assert!(!groups.join(1, 2), "they are one already");
        assert!(groups.join(6, 4));
        assert_eq!(groups.all(), [vec![1, 2, 3, 5], vec![4, 6]]);
    }

    #[test]
    fn what_is_kept_apart_is_never_joined_by_a_chain() {
        let mut groups = Groups::new(6);
        groups.keep_apart(0, 3);
        groups.keep_apart(2, 2);
        assert!(groups.join(0, 1) && groups.join(2, 3));
        assert!(!groups.join(1, 2), "it would bring 0 and 3 together");
        assert!(groups.join(4, 5) && groups.join(4, 1), "others may join either side");
        assert!(!groups.join(5, 3));
        assert_eq!(groups.all(), [vec![0, 1, 4, 5], vec![2, 3]]);
    }
}
