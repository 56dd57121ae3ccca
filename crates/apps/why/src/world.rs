//! The facts of a cluster and the tables that follow from them for the nodes that are asked about.

use std::collections::BTreeMap;

use tortie_api::Resource;
use tortie_calc::{Calculator, Overrides};
use tortie_desired::Tables;
use tortie_facts::{Filter, Key, Revision, Update, Value};
use tortie_store::{Reader, StoreError};
use tortie_verdict::with_staged;

use crate::uplink;

/// One node's tables, and what they were worked out with.
pub struct NodeView {
    calculator: Calculator,
    /// What the calculation says, if the tables are not that.
    base: Option<Tables>,
    /// What the node should hold; or would, if staged policies were enforced.
    pub tables: Tables,
}

impl NodeView {
    fn new(node: &str, facts: &BTreeMap<Key, Value>, staged: bool) -> NodeView {
        let mut calculator = Calculator::new(node, Overrides::default());
        calculator.set_interfaces(uplink::interfaces(facts, node));
        for (key, value) in facts {
            calculator.apply(update(key, Some(value)));
        }
        calculator.in_sync();
        let mut view = NodeView { calculator, base: staged.then(Tables::default), tables: Tables::default() };
        view.flush();
        view
    }

    fn flush(&mut self) {
        let batch = self.calculator.flush();
        match &mut self.base {
            None => self.tables.apply(&batch),
            Some(base) => {
                base.apply(&batch);
                self.tables = with_staged(base);
            }
        }
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
    staged: bool,
}

impl World {
    /// A cluster of these facts.
    pub fn new(facts: impl IntoIterator<Item = (Key, Value)>) -> World {
        World { facts: facts.into_iter().collect(), views: BTreeMap::new(), staged: false }
    }

    /// The same cluster as if its staged policies were enforced.
    pub fn with_staged(&self) -> World {
        World { facts: self.facts.clone(), views: BTreeMap::new(), staged: true }
    }

    /// The same cluster, with nothing worked out yet.
    pub(crate) fn anew(&self) -> World {
        World { facts: self.facts.clone(), views: BTreeMap::new(), staged: self.staged }
    }

    /// Whether staged policies count as enforced.
    pub fn is_staged(&self) -> bool {
        self.staged
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
        let (facts, staged) = (&self.facts, self.staged);
        self.views.entry(name.to_owned()).or_insert_with(|| NodeView::new(name, facts, staged))
    }

    /// A node that has been asked about before.
    pub(crate) fn known(&self, name: &str) -> Option<&NodeView> {
        self.views.get(name)
    }

    /// Changes one fact; what it was before.
    pub fn put(&mut self, key: &Key, value: Option<Value>) -> Option<Value> {
        let old = match &value {
            Some(value) => self.facts.insert(key.clone(), value.clone()),
            None => self.facts.remove(key),
        };
        for (node, view) in &mut self.views {
            view.calculator.apply(update(key, value.as_ref()));
            view.calculator.set_interfaces(uplink::interfaces(&self.facts, node));
            view.flush();
        }
        old
    }
}

fn update(key: &Key, value: Option<&Value>) -> Update {
    Update { key: key.clone(), value: value.cloned(), revision: Revision(1) }
}
