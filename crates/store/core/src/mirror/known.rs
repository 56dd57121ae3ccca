//! The keys that a follower has told, small: there may be a hundred thousand, and they are only looked through when a
//! listing is taken again.

use std::collections::BTreeSet;

use tortie_api::Kind;
use tortie_facts::Key;

/// A key as a short text: of a resource a character for its kind, the namespace, a slash and the name; of all others
/// their path, which starts with a slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Short(Box<str>);

/// The character of the first kind. Those of the others follow, and none is a slash.
const FIRST: u8 = b'A';

impl Short {
    pub(super) fn of(key: &Key) -> Short {
        let text = match key {
            Key::Resource { kind, namespace, name } => {
                let number = Kind::every().position(|one| one == *kind).expect("every kind is among them");
                let letter = char::from(FIRST + u8::try_from(number).expect("there are some dozens"));
                let mut text = String::with_capacity(2 + namespace.len() + name.len());
                text.push(letter);
                text.extend([namespace, "/", name]);
                text
            }
            Key::Block(_) | Key::Affinity(_) | Key::Handle(_) | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => {
                key.path()
            }
        };
        Short(text.into_boxed_str())
    }

    /// The key; `None` for one that no store can hold.
    fn key(&self) -> Option<Key> {
        let Short(text) = self;
        if text.starts_with('/') {
            return Key::from_path(text).ok();
        }
        let number = text.bytes().next()?.checked_sub(FIRST)?;
        let (namespace, name) = text.get(1..)?.split_once('/')?;
        Some(Key::resource(Kind::every().nth(number.into())?, namespace, name))
    }
}

/// The keys that were told and not deleted.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeSet<Short>);

impl Known {
    pub(super) fn insert(&mut self, key: &Key) {
        self.0.insert(Short::of(key));
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.0.remove(&Short::of(key))
    }

    pub(super) fn extend(&mut self, keys: Vec<Short>) {
        self.0.extend(keys);
    }

    /// From now on these are known; the keys of those that are not among them.
    pub(super) fn replace(&mut self, keys: Vec<Short>) -> impl Iterator<Item = Key> {
        // Collected at once, the tree has no gaps.
        let before = std::mem::replace(&mut self.0, keys.into_iter().collect());
        let known = &self.0;
        before.into_iter().filter(move |key| !known.contains(key)).filter_map(|key| key.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back() {
        let cidr = "10.0.0.0/26".parse().expect("a literal");
        let resource = |kind: Kind| Key::resource(kind, if kind.namespaced() { "nß" } else { "" }, "a-1.b");
        let others = [
            Key::Block(cidr),
            Key::host_affinity("n", cidr),
            Key::Handle("h".into()),
            Key::IpamConfig,
            Key::Status("v1/host/n/endpoint/eth0".into()),
        ];
        let all: Vec<Key> = Kind::every().map(resource).chain(others).collect();
        let mut known = Known::default();
        all.iter().for_each(|key| known.insert(key));
        assert!(known.remove(&all[3]) && !known.remove(&all[3]));
        let gone: BTreeSet<Key> = known.replace(vec![Short::of(&all[0])]).collect();
        assert_eq!(
            gone,
            all.iter().enumerate().filter(|(at, _)| ![0, 3].contains(at)).map(|(_, k)| k.clone()).collect()
        );
        assert_eq!(known.replace(Vec::new()).collect::<Vec<_>>(), all[..1]);
    }
}
