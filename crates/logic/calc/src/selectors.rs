//! Selectors and rules that were read lately: most policies repeat them.

use hashbrown::HashMap;
use tortie_desired::SetId;
use tortie_selector::{Selector, SelectorError};

use crate::pack::Usable;

/// When so many are remembered, all are forgotten.
const MOST: usize = 512;

/// Remembers what texts mean and what sets of selectors are called.
#[derive(Debug, Default)]
pub(crate) struct Selectors {
    parsed: HashMap<Box<str>, Selector>,
    ids: HashMap<Selector, SetId>,
    pub(crate) usable: Usable,
}

impl Selectors {
    /// Reads a selector; empty text means `all()`.
    pub(crate) fn parse(&mut self, text: &str) -> Result<Selector, SelectorError> {
        if let Some(known) = self.parsed.get(text) {
            return Ok(known.clone());
        }
        let selector = Selector::parse(text)?;
        if self.parsed.len() >= MOST {
            self.parsed.clear();
        }
        self.parsed.insert(text.into(), selector.clone());
        Ok(selector)
    }

    /// Forgets what texts mean: those that come together repeat each other, those of later seldom do.
    pub(crate) fn forget(&mut self) {
        (self.parsed, self.ids) = Default::default();
    }

    /// The id of the set of what a selector matches.
    pub(crate) fn set_id(&mut self, selector: &Selector) -> SetId {
        if let Some(known) = self.ids.get(selector) {
            return known.clone();
        }
        let id = SetId::new(&selector.id());
        if self.ids.len() >= MOST {
            self.ids.clear();
        }
        self.ids.insert(selector.clone(), id.clone());
        id
    }
}
