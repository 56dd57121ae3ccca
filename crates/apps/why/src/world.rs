//! The facts of a cluster and the tables that follow from them for the nodes that are asked about.

use std::collections::BTreeMap;

use tortie_api::Resource;
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Tables;
use tortie_facts::{Filter, Key, Revision, Update, Value};
use tortie_store::{Reader, StoreError};

/// One node's tables, and what they were worked out with.
pub struct NodeView {
    calculator: Calculator,
    /// What the node should hold.
    pub tables: Tables,
}

impl NodeView {
    fn new(node: &str, facts: &BTreeMap<Key, Value>) -> NodeView {
        let mut calculator = Calculator::new(node, Overrides::default());
        for (key, value) in facts {
            calculator.apply(update(key, Some(value)));
        }
        calculator.in_sync();
        let mut view = NodeView { calculator, tables: Tables::default() };
        view.flush();
        view
    }

    fn flush(&mut self) {
        let batch = self.calculator.flush();
        self.tables.apply(&batch);
    }

    /// The calculation behind the tables.
    pub fn calculator(&self) -> &Calculator {
        &self.calculator
    }
}

/// The facts of a cluster. Tables are worked out when a node is first asked about, and kept up with changes.
#[derive(Default)]
pub struct World {
    facts: BTreeMap<Key, Value>,
    views: BTreeMap<String, NodeView>,
}

impl World {
    /// A cluster of these facts.
    pub fn new(facts: impl IntoIterator<Item = (Key, Value)>) -> World {
        World { facts: facts.into_iter().collect(), views: BTreeMap::new() }
    }

    /// Everything in a store that can be read; second, a line for each text that can't.
    pub fn read(store: &dyn Reader) -> Result<(World, Vec<String>), StoreError> {
        let listing = store.list(&Filter::All)?;
        let invalid = listing.invalid.into_iter().map(|one| format!("{}: {}", one.path, one.reason)).collect();
        Ok((World::new(listing.entries.into_iter().map(|entry| (entry.key, entry.value))), invalid))
    }

    /// The facts.
    pub fn facts(&self) -> &BTreeMap<Key, Value> {
        &self.facts
    }

    /// Every resource.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.facts.values().filter_map(Value::as_resource).map(|resource| &**resource)
    }

    /// One resource.
    pub fn resource(&self, key: &Key) -> Option<&Resource> {
        self.facts.get(key).and_then(Value::as_resource).map(|resource| &**resource)
    }

    /// What a node of this name should hold.
    pub fn node(&mut self, name: &str) -> &NodeView {
        let facts = &self.facts;
        self.views.entry(name.to_owned()).or_insert_with(|| NodeView::new(name, facts))
    }

    /// A node that has been asked about before.
    pub(crate) fn known(&self, name: &str) -> Option<&NodeView> {
        self.views.get(name)
    }

    /// Changes one fact; what it was before.
    pub fn put(&mut self, key: &Key, value: Option<Value>) -> Option<Value> {
        for view in self.views.values_mut() {
            view.calculator.apply(update(key, value.as_ref()));
            view.flush();
        }
        match value {
            Some(value) => self.facts.insert(key.clone(), value),
            None => self.facts.remove(key),
        }
    }
}

fn update(key: &Key, value: Option<&Value>) -> Update {
    Update { key: key.clone(), value: value.cloned(), revision: Revision(1) }
}
