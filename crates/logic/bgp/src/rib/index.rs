//! A hash table of places: where in a row the entry of a key is.
//!
//! Invariant: from the cell that a hash points to up to the cell with its place, no cell is empty.
//!
//! A table of half a million is larger than the caches, so that the time of a search is that of its misses. This one has
//! one a search, of a cell that tells most keys apart by itself, and `foresee` lets those of many searches overlap. A
//! table for all purposes has two that can't (2.4 times BIRD's processor time for 500,000 routes from it with a B-tree,
//! 1.4 with `hashbrown`; docs/benchmarks.md).

/// A place, which is of one key, and half of the hash of its key.
#[derive(Clone, Copy, Debug)]
struct Cell {
    hash: u32,
    place: u32,
}

const EMPTY: Cell = Cell { hash: 0, place: u32::MAX };

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// A power of two, or none at all.
    cells: Vec<Cell>,
    len: usize,
}

impl Index {
    /// With room for so many.
    pub(super) fn with_room(len: usize) -> Index {
        Index { cells: vec![EMPTY; (len * 3 / 2).next_power_of_two().max(4)], len: 0 }
    }

    /// How many places it holds.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place of a hash of which `is_it` says that it is the right one.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.cell(hash);
        loop {
            let cell = *self.cells.get(at)?;
            if cell.place == EMPTY.place {
                return None;
            }
            if cell.hash == hash && is_it(cell.place) {
                return Some(cell.place);
            }
            at = self.next(at);
        }
    }

    /// Adds a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        if self.len * 4 >= self.cells.len() * 3 {
            let cells = vec![EMPTY; (self.cells.len() * 2).max(4)];
            let before = std::mem::replace(self, Index { cells, len: 0 });
            for cell in before.cells.iter().filter(|cell| cell.place != EMPTY.place) {
                self.put(*cell);
            }
        }
        self.put(Cell { hash, place });
    }

    fn put(&mut self, cell: Cell) {
        let mut at = self.cell(cell.hash);
        while self.cells[at].place != EMPTY.place {
            at = self.next(at);
        }
        self.cells[at] = cell;
        self.len += 1;
    }

    /// Takes a place out, if it is there.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let mut hole = self.cell(hash);
        loop {
            match self.cells.get(hole) {
                None | Some(Cell { place: u32::MAX, .. }) => return,
                Some(cell) if cell.place == place => break,
                Some(_) => hole = self.next(hole),
            }
        }
        self.len -= 1;
        // What follows moves up, unless its hash points behind the hole.
        let mut at = self.next(hole);
        while self.cells[at].place != EMPTY.place {
            let from_home = at.wrapping_sub(self.cell(self.cells[at].hash)) & (self.cells.len() - 1);
            let from_hole = at.wrapping_sub(hole) & (self.cells.len() - 1);
            if from_home >= from_hole {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.cells[hole] = EMPTY;
    }

    /// Has the cells of these hashes in the cache, where the table is too large for it.
    pub(super) fn foresee(&self, hashes: impl Iterator<Item = u32>) {
        const LARGE: usize = 1 << 15;
        if self.cells.len() >= LARGE {
            // First all hashes: nothing else is between the loads then, and more are under way at once.
            let cells: Vec<usize> = hashes.map(|hash| self.cell(hash)).collect();
            std::hint::black_box(cells.iter().fold(0_u32, |all, cell| all.wrapping_add(self.cells[*cell].place)));
        }
    }

    fn cell(&self, hash: u32) -> usize {
        hash as usize & self.cells.len().wrapping_sub(1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes that meet, at the end of the table too.
        #[test]
        fn holds_what_was_inserted_and_not_removed(steps in proptest::collection::vec((0..12_u32, 0..24_u32, any::<bool>()), 0..300)) {
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            let hash = |number: u32| number.wrapping_sub(4);
            for (number, place, inserts) in steps {
                // A place is of one key.
                let place = number * 24 + place;
                if inserts && model.insert((number, place)) {
                    index.insert(hash(number), place);
                } else if !inserts {
                    model.remove(&(number, place));
                    index.remove(hash(number), place);
                }
                prop_assert_eq!(index.len(), model.len());
                for number in 0..12 {
                    for place in number * 24..(number + 1) * 24 {
                        let found = index.find(hash(number), |other| other == place);
                        prop_assert_eq!(found.is_some(), model.contains(&(number, place)), "{} {}", number, place);
                    }
                }
            }
        }
    }

    #[test]
    fn room_that_was_asked_for_is_enough() {
        for len in [0, 1, 3, 5, 100, 1000] {
            let mut index = Index::with_room(len);
            let cells = index.cells.len();
            (0..u32::try_from(len).expect("small")).for_each(|place| index.insert(place, place));
            assert_eq!(index.cells.len(), cells, "{len}");
        }
    }
}
