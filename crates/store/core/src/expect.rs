//! Whether a write may be done, given the revision that is there: one rule for every store.

use tortie_facts::Revision;

use crate::{Expect, WriteError};

/// Judges a write. `found` is the revision under the key (`None`: absent), `name` the key for messages.
///
/// A deletion or an update of what is absent is [`WriteError::Missing`], every other mismatch a conflict.
pub fn judge(name: &str, expect: Expect, deletes: bool, found: Option<Revision>) -> Result<(), WriteError> {
    let conflict = |found, expected| Err(WriteError::Conflict { key: name.to_owned(), found, expected });
    match (expect, found) {
        (Expect::Absent | Expect::Any, None) if deletes => Err(WriteError::Missing(name.to_owned())),
        (Expect::Revision(_), None) => Err(WriteError::Missing(name.to_owned())),
        (Expect::Absent | Expect::Any, None) | (Expect::Any, Some(_)) => Ok(()),
        (Expect::Absent, Some(found)) => conflict(found, Revision(0)),
        (Expect::Revision(expected), Some(found)) if expected == found => Ok(()),
        (Expect::Revision(expected), Some(found)) => conflict(found, expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_its_answer() {
        let at = Some(Revision(7));
        let missing = Err(WriteError::Missing("k".into()));
        let conflict =
            |expected| Err(WriteError::Conflict { key: "k".into(), found: Revision(7), expected: Revision(expected) });
        let table = [
            (Expect::Absent, false, None, Ok(())),
            (Expect::Absent, false, at, conflict(0)),
            (Expect::Absent, true, None, missing.clone()),
            (Expect::Absent, true, at, conflict(0)),
            (Expect::Any, false, None, Ok(())),
            (Expect::Any, false, at, Ok(())),
            (Expect::Any, true, None, missing.clone()),
            (Expect::Any, true, at, Ok(())),
            (Expect::Revision(Revision(7)), false, None, missing.clone()),
            (Expect::Revision(Revision(7)), false, at, Ok(())),
            (Expect::Revision(Revision(6)), false, at, conflict(6)),
            (Expect::Revision(Revision(7)), true, None, missing),
            (Expect::Revision(Revision(7)), true, at, Ok(())),
            (Expect::Revision(Revision(6)), true, at, conflict(6)),
        ];
        for (expect, deletes, found, answer) in table {
            assert_eq!(judge("k", expect, deletes, found), answer, "{expect:?} deletes={deletes} found={found:?}");
        }
    }
}
