//! The projectcalico.org/v3 kinds: fields, defaults, validation, text forms.
//!
//! Invariant: what [`Resource::to_json`] writes is byte for byte what upstream writes: field names,
//! their order, which empty fields are left out, and how numbers and times are spelt.

mod asn;
mod check;
mod check_metadata;
mod check_policy;
mod check_rule;
mod community;
mod duration;
mod empty;
mod enums;
mod error;
mod icmp;
mod json;
mod kind;
pub mod kinds;
mod label_map;
mod metadata;
mod nets;
mod newer;
mod path;
mod port;
mod protocol;
mod read;
mod resource;
mod rule;
mod text;
mod timestamp;
mod walk;
mod yaml;

pub mod ipam;
pub mod manifest;
#[cfg(feature = "schema")]
pub mod schema;
pub mod wep;

pub use duration::{GoDuration, GoDurationError};
pub use error::{FieldError, ReadError};
pub use icmp::IcmpFields;
pub use json::go_json;
pub use kind::{Kind, UnknownKind};
pub use kinds::*;
pub use label_map::LabelMap;
pub use metadata::{Condition, Metadata, OwnerReference};
pub use nets::IpNetText;
pub use newer::{Newer, keep_unknown};
pub use port::Port;
pub use protocol::RuleProtocol;
pub use resource::Resource;
pub use rule::{Action, EntityRule, HttpMatch, HttpPath, Rule, RuleMetadata, ServiceAccountMatch, ServiceMatch};
pub use text::{printable, printable_lines};
pub use timestamp::Timestamp;
pub use yaml::{push_yaml_item, to_yaml};

/// The `apiVersion` of every resource.
pub const API_VERSION: &str = "projectcalico.org/v3";
