//! Places that are joined into sets, as far as a bound on their size permits.

/// Sets that are joined step by step.
pub struct Joined {
    /// Each place points to another one of its set; the least points to itself.
    to: Vec<usize>,
    /// Of the set, for the least place of each.
    size: Vec<usize>,
}

impl Joined {
    /// Each place is a set of its own.
    pub fn new(places: usize) -> Self {
        Self { to: (0..places).collect(), size: vec![1; places] }
    }

    /// The least place of a set.
    pub fn root(&mut self, mut place: usize) -> usize {
        while self.to[place] != place {
            self.to[place] = self.to[self.to[place]];
            place = self.to[place];
        }
        place
    }

    /// Joins two sets, unless they have more than `most` places together.
    pub fn join(&mut self, a: usize, b: usize, most: usize) {
        let (a, b) = (self.root(a), self.root(b));
        let size = self.size[a] + self.size[b];
        if a != b && size <= most {
            self.to[a.max(b)] = a.min(b);
            self.size[a.min(b)] = size;
        }
    }
}
