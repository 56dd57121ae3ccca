//! YAML as the Go tools of this field read and write it: YAML 1.1 words and numbers on the way in, their quoting and
//! wrapping on the way out.

mod scalar;
mod tree;
mod write;

pub(crate) use scalar::Scalar;
pub(crate) use tree::{Documents, Node, NodeValue};
pub use write::{push_yaml_item, to_yaml};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Number, Value};

    use super::{Documents, to_yaml};

    fn text() -> impl Strategy<Value = String> {
        let awkward = "([-?:,\\[\\]{}#&*!|>'\"%@` ynoYN~.0-9e_x\n\té]|yes|null|0x|: | #){0,12}";
        prop_oneof![awkward, any::<String>(), "[a-z]{1,10}( {1,3}[a-z]{1,10}){0,40}"]
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| Value::Number(n.into())),
            (-1e15..1e15f64).prop_map(|f| Value::Number(Number::from_f64(f.trunc() + 0.5).expect("finite"))),
            text().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::btree_map(text(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_reads_back_the_same(value in json()) {
            let written = to_yaml(&value);
            let read = Documents::of(&written).collect::<Result<Vec<_>, _>>().map_err(|e| TestCaseError::fail(format!("{e:?}\n{written}")))?;
            match read.first() {
                Some((_, node)) => prop_assert_eq!(node.to_value(), value, "{}", written),
                // A document that is just null counts as empty.
                None => prop_assert_eq!(Value::Null, value),
            }
        }
    }
}
