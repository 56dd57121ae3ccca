//! A port of a Kubernetes rule: a number or a name.

use serde::{Deserialize, Serialize};

/// A number or a name, written back as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A port number.
    Int(i32),
    /// A port's name.
    Text(String),
}
