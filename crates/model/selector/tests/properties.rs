//! Properties of all selectors: an independent, slow reading agrees; printing is stable; no text panics.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tortie_selector::Selector;

/// A selector as a tree of the test's own, with its own meaning.
#[derive(Clone, Debug)]
enum Tree {
    Compare(usize, String, String),
    In(bool, String, Vec<String>),
    Has(String),
    All,
    Not(Box<Tree>),
    Both(Vec<Tree>),
    Either(Vec<Tree>),
}

const OPERATORS: [&str; 5] = ["==", "!=", "contains", "starts with", "ends with"];

impl Tree {
    fn text(&self) -> String {
        let quote = |v: &String| if v.contains('\'') { format!("\"{v}\"") } else { format!("'{v}'") };
        let join = |items: &[Tree], by: &str| {
            let items: Vec<String> = items.iter().map(Tree::text).collect();
            format!("({})", items.join(by))
        };
        match self {
            Tree::Compare(op, key, value) => format!("{key} {}{}", OPERATORS[*op], quote(value)),
            Tree::In(negated, key, values) => {
                let values: Vec<String> = values.iter().map(quote).collect();
                format!("{key} {} {{{}}}", if *negated { "not in" } else { "in" }, values.join(" ,"))
            }
            Tree::Has(key) => format!("has( {key})"),
            Tree::All => "all( )".to_owned(),
            Tree::Not(inner) => format!("! {}", inner.text()),
            Tree::Both(items) => join(items, "&&"),
            Tree::Either(items) => join(items, " ||\t"),
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Tree::Compare(op, key, value) => {
                let found = labels.get(key);
                match op {
                    0 => found == Some(value),
                    1 => found != Some(value),
                    2 => found.is_some_and(|f| f.contains(value.as_str())),
                    3 => found.is_some_and(|f| f.starts_with(value.as_str())),
                    _ => found.is_some_and(|f| f.ends_with(value.as_str())),
                }
            }
            Tree::In(negated, key, values) => labels.get(key).is_some_and(|found| values.contains(found)) != *negated,
            Tree::Has(key) => labels.contains_key(key),
            Tree::All => true,
            Tree::Not(inner) => !inner.matches(labels),
            Tree::Both(items) => items.iter().filter(|i| !i.matches(labels)).count() == 0,
            Tree::Either(items) => items.iter().filter(|i| i.matches(labels)).count() > 0,
        }
    }

    /// Whether a negation stands directly on another, which printing and reading again takes away.
    fn negates_twice(&self) -> bool {
        match self {
            Tree::Not(inner) => inner.is_negation() || inner.negates_twice(),
            Tree::Both(items) | Tree::Either(items) => items.iter().any(Tree::negates_twice),
            Tree::Compare(..) | Tree::In(..) | Tree::Has(_) | Tree::All => false,
        }
    }

    fn is_negation(&self) -> bool {
        match self {
            Tree::Not(_) => true,
            Tree::Both(items) | Tree::Either(items) => items.len() == 1 && items[0].is_negation(),
            Tree::Compare(..) | Tree::In(..) | Tree::Has(_) | Tree::All => false,
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", Just("in".to_owned()), Just("has".to_owned()), Just("x.y/z-1".to_owned())]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", "['a-c ]{0,3}", "[\"a-c]{0,3}"]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (0..5usize, key(), value()).prop_map(|(op, k, v)| Tree::Compare(op, k, v)),
        (any::<bool>(), key(), prop::collection::vec(value(), 0..4)).prop_map(|(n, k, v)| Tree::In(n, k, v)),
        key().prop_map(Tree::Has),
        Just(Tree::All),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| Tree::Not(Box::new(t))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Tree::Both),
            prop::collection::vec(inner, 1..4).prop_map(Tree::Either),
        ]
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(key(), value(), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn matching_agrees_with_the_slow_reading(tree in tree(), labels in prop::collection::vec(labels(), 1..6)) {
        let selector = Selector::parse(&tree.text()).expect("generated text is good");
        let restrictions = selector.restrictions();
        for labels in labels {
            let matches = tree.matches(&labels);
            prop_assert_eq!(selector.matches(&labels), matches, "{} on {:?}", tree.text(), labels);
            for (key, restriction) in restrictions.iter().filter(|_| matches) {
                let found = labels.get(*key);
                prop_assert!(restriction.satisfiable());
                prop_assert!(!restriction.must_be_present || found.is_some());
                prop_assert!(!restriction.must_be_absent || found.is_none());
                if let Some(values) = &restriction.one_of {
                    prop_assert!(found.is_some_and(|f| values.contains(&f.as_str())));
                }
            }
        }
    }

    #[test]
    fn printing_is_stable(tree in tree(), labels in labels()) {
        let selector = Selector::parse(&tree.text()).expect("generated text is good");
        let again = Selector::parse(selector.canonical()).expect("printed text is good");
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        if !tree.negates_twice() {
            prop_assert_eq!(again.canonical(), selector.canonical());
            prop_assert_eq!(again.id(), selector.id());
        }
        let third = Selector::parse(again.canonical()).expect("printed text is good");
        prop_assert_eq!(third, again);
    }

    #[test]
    fn rewriting_moves_the_keys_and_nothing_else(tree in tree(), labels in labels()) {
        let selector = Selector::parse(&tree.text()).expect("generated text is good");
        let mut moved: BTreeMap<_, _> = labels.iter().map(|(k, v)| (format!("pcns.{k}"), v.clone())).collect();
        moved.insert("projectcalico.org/namespace".to_owned(), "n".to_owned());
        prop_assert_eq!(selector.rewrite_for_namespace().matches(&moved), selector.matches(&labels));
    }

    #[test]
    fn no_text_panics(text in "([a-c]|[=!&|(){}'\" ,\\t]|has\\(|all\\(\\)|global\\(|not in|starts with|é){0,30}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.position <= text.len());
        }
    }

    #[test]
    fn no_arbitrary_text_panics(text in any::<String>()) {
        let _ = Selector::parse(&text);
    }
}
