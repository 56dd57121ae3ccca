//! The fields of every kind as JSON Schema, from the types that read and write them.
//!
//! What a type does not say by itself (a number or a name, durations, times) is said here. The schemas are plain:
//! whoever publishes them brings them into the form of the place, as `tortie-crd` does for Kubernetes.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::kind::{Kind, for_each_kind};
use crate::kinds::*;
use crate::{GoDuration, Port, RuleProtocol, Timestamp};

/// The described parts of a kind.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What is wanted.
    pub spec: Schema,
    /// What was observed, for kinds that report it.
    pub status: Option<Schema>,
}

/// A kind that describes itself.
pub(crate) trait Described {
    /// Its parts, with every reference written out.
    fn parts(generator: &mut SchemaGenerator) -> Parts;
}

macro_rules! parts_of_each {
    (
        $($variant:ident $name:literal $plural:literal $namespaced:literal [$($alias:literal),*];)*
        @internal
        $($internal:ident $iname:literal $iplural:literal $inamespaced:literal [];)*
    ) => {
        /// The parts of a kind. No schema refers to another: each is written out in full.
        pub fn parts(kind: Kind) -> Parts {
            let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
            let mut generator = settings.into_generator();
            match kind {
                $(Kind::$variant => <$variant as Described>::parts(&mut generator),)*
                $(Kind::$internal => <$internal as Described>::parts(&mut generator),)*
            }
        }
    };
}

for_each_kind!(parts_of_each);

/// A duration as [`GoDuration`] reads it.
const DURATION: &str = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+)$";

/// Says the schema of a type that writes itself.
macro_rules! describe {
    ($($type:ty: $name:literal = $schema:tt;)*) => {
        $(impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

describe! {
    GoDuration: "Duration" = { "type": "string", "pattern": DURATION };
    Timestamp: "Time" = { "type": "string", "format": "date-time" };
    Port: "Port" = { "anyOf": [{ "type": "integer" }, { "type": "string" }] };
    RuleProtocol: "Protocol" = { "anyOf": [{ "type": "integer" }, { "type": "string" }] };
    Dscp: "Dscp" = { "anyOf": [{ "type": "integer" }, { "type": "string" }] };
    IntOrString: "IntOrString" = { "anyOf": [{ "type": "integer" }, { "type": "string" }] };
}
