//! Disjoint sets of items, as trees.

/// The parents of items, which are numbered from 0. A root is its own parent, and stands for its set.
pub struct Parents(Vec<u32>);

impl Parents {
    /// `count` items, each a set of its own.
    pub fn new(count: u32) -> Self {
        Self((0..count).collect())
    }

    pub fn items(&self) -> std::ops::Range<u32> {
        0..self.0.len() as u32
    }

    pub fn is_root(&self, item: u32) -> bool {
        self.0[item as usize] == item
    }

    /// The root of an item's set. Shortens the way there (path halving).
    pub fn root(&mut self, mut item: u32) -> u32 {
        while !self.is_root(item) {
            let grandparent = self.0[self.0[item as usize] as usize];
            self.0[item as usize] = grandparent;
            item = grandparent;
        }
        item
    }

    /// Makes the set of one root a part of another root's set.
    pub fn attach(&mut self, root: u32, to: u32) {
        self.0[root as usize] = to;
    }
}
