//! Values under small numbers.

/// Slots are made so many at a time: nothing moves when there are more, and little is kept in reserve.
const CHUNK: usize = 512;

/// Values by numbers that are given out again after they were removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Beside<T>,
    next: u32,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Beside::default(), next: 0, free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.slots.put(id, value);
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.slots.take(id);
        if value.is_some() {
            self.free.push(id);
        }
        value
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id)
    }

    /// What is there, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter()
    }
}

/// Values under the numbers of another slab.
#[derive(Debug)]
pub(crate) struct Beside<T> {
    chunks: Vec<Vec<Option<T>>>,
}

impl<T> Default for Beside<T> {
    fn default() -> Self {
        Beside { chunks: Vec::new() }
    }
}

impl<T> Beside<T> {
    pub(crate) fn put(&mut self, id: u32, value: T) {
        let (chunk, at) = (id as usize / CHUNK, id as usize % CHUNK);
        while self.chunks.len() <= chunk {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = &mut self.chunks[chunk];
        if chunk.len() <= at {
            chunk.resize_with(at + 1, || None);
        }
        chunk[at] = Some(value);
    }

    pub(crate) fn take(&mut self, id: u32) -> Option<T> {
        self.chunks.get_mut(id as usize / CHUNK)?.get_mut(id as usize % CHUNK)?.take()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.chunks.get(id as usize / CHUNK)?.get(id as usize % CHUNK)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.chunks.get_mut(id as usize / CHUNK)?.get_mut(id as usize % CHUNK)?.as_mut()
    }

    /// What is there, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = |(chunk, first): (_, u32)| <&Vec<Option<T>>>::into_iter(chunk).zip(first..);
        let numbered = self.chunks.iter().zip((0..).step_by(CHUNK)).flat_map(slots);
        numbered.filter_map(|(slot, id)| Some((id, slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_map_from_numbers_that_it_gives_out() {
        let (mut slab, mut model) = (Slab::default(), BTreeMap::new());
        for step in 0..2000_u32 {
            let id = step.wrapping_mul(2_654_435_761) >> 22;
            if step % 3 == 2 {
                assert_eq!(slab.remove(id), model.remove(&id));
            } else {
                assert_eq!(model.insert(slab.insert(step), step), None, "a number twice");
            }
            assert_eq!(slab.get(id), model.get(&id));
        }
        assert!(slab.iter().map(|(id, value)| (id, *value)).eq(model));
    }
}
