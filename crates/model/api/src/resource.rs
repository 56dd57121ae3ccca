//! One value for a resource of any kind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{Checked as _, Findings};
use crate::check_metadata;
use crate::error::{FieldError, ReadError};
use crate::kind::{Kind, for_each_kind};
use crate::kinds::*;
use crate::metadata::Metadata;
use crate::read::{self, Typing};
use crate::{Newer, UnknownKind, json, newer};

/// Declares the struct of a kind: metadata, specification and, for some, status; `kind` and `apiVersion` are written
/// first and are checked when they are read.
macro_rules! resource {
    ($(#[$doc:meta])* $kind:ident { spec: $spec:ty $(, status: $status:ty)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $kind {
            /// Name, identity, revision and labels.
            pub metadata: $crate::Metadata,
            /// What is wanted.
            pub spec: $spec,
            $(
                /// What was observed.
                pub status: $status,
            )?
        }

        const _: () = {
            #[derive(serde::Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Written<'a> {
                kind: &'static str,
                api_version: &'static str,
                metadata: &'a $crate::Metadata,
                spec: &'a $spec,
                $(
                    #[serde(skip_serializing_if = "crate::resource::absent")]
                    status: &'a $status,
                )?
            }

            impl serde::Serialize for $kind {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    Written {
                        kind: $crate::Kind::$kind.name(),
                        api_version: $crate::API_VERSION,
                        metadata: &self.metadata,
                        spec: &self.spec,
                        $(status: { let status: &$status = &self.status; status },)?
                    }
                    .serialize(serializer)
                }
            }

            #[derive(serde::Deserialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            struct Read {
                #[serde(default)]
                kind: Option<String>,
                #[serde(default)]
                api_version: Option<String>,
                #[serde(default)]
                metadata: $crate::Metadata,
                #[serde(default)]
                spec: $spec,
                $(
                    #[serde(default)]
                    status: $status,
                )?
            }

            #[cfg(feature = "schema")]
            impl $crate::schema::Described for $kind {
                fn parts(generator: &mut schemars::SchemaGenerator) -> $crate::schema::Parts {
                    $crate::schema::Parts {
                        spec: generator.subschema_for::<$spec>(),
                        status: [$(generator.subschema_for::<$status>())?].into_iter().next(),
                    }
                }
            }

            impl<'de> serde::Deserialize<'de> for $kind {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let read = Read::deserialize(deserializer)?;
                    $crate::resource::right_type($crate::Kind::$kind, read.kind.as_deref(), read.api_version.as_deref())
                        .map_err(serde::de::Error::custom)?;
                    Ok($kind {
                        metadata: read.metadata,
                        spec: read.spec,
                        $(status: { let status: $status = read.status; status },)?
                    })
                }
            }
        };
    };
}

pub(crate) use resource;

/// Whether an optional status is left out; a plain one is always written, as Go's encoder does.
pub(crate) fn absent<T: MaybeAbsent>(status: &&T) -> bool {
    status.is_absent()
}

/// A status that may be missing as a whole.
pub(crate) trait MaybeAbsent {
    fn is_absent(&self) -> bool;
}

impl<T> MaybeAbsent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

macro_rules! never_absent {
    ($($status:ty),*) => {
        $(impl MaybeAbsent for $status {
            fn is_absent(&self) -> bool {
                false
            }
        })*
    };
}

never_absent!(CalicoNodeStatusStatus, KubeControllersConfigurationStatus, NodeStatus, TierStatus);

pub(crate) fn right_type(kind: Kind, name: Option<&str>, version: Option<&str>) -> Result<(), String> {
    match (name, version) {
        (Some(other), _) if other != kind.name() => Err(format!("kind {other:?}: expected {:?}", kind.name())),
        (_, Some(other)) if other != crate::API_VERSION => {
            Err(format!("apiVersion {other:?}: expected {:?}", crate::API_VERSION))
        }
        _ => Ok(()),
    }
}

macro_rules! declare_resource {
    (
        $($variant:ident $name:literal $plural:literal $namespaced:literal [$($alias:literal),*];)*
        @internal
        $($internal:ident $iname:literal $iplural:literal $inamespaced:literal [];)*
    ) => {
        declare_resource! {
            $($variant $name $plural $namespaced [$($alias),*];)*
            $($internal $iname $iplural $inamespaced [];)*
        }
    };
    ($($variant:ident $name:literal $plural:literal $namespaced:literal [$($alias:literal),*];)*) => {
        /// A resource of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource {
            $(#[doc = concat!("A resource of kind `", $name, "`.")] $variant(Box<$variant>)),*
        }

        impl Resource {
            /// The resource's kind.
            pub fn kind(&self) -> Kind {
                match self { $(Resource::$variant(_) => Kind::$variant),* }
            }

            /// The resource's metadata.
            pub fn metadata(&self) -> &Metadata {
                match self { $(Resource::$variant(r) => &r.metadata),* }
            }

            /// The resource's metadata, to change.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self { $(Resource::$variant(r) => &mut r.metadata),* }
            }

            /// Fills in what upstream fills in before it stores a resource, such as a policy's tier and types.
            pub fn apply_defaults(&mut self) {
                match self { $(Resource::$variant(r) => r.apply_defaults()),* }
            }

            /// Everything that is wrong with the resource. Defaults are expected to have been applied.
            pub fn validate(&self) -> Result<(), Vec<FieldError>> {
                let mut findings = Findings::default();
                check_metadata::check(self.kind(), self.metadata(), &mut findings);
                match self { $(Resource::$variant(r) => r.check(&mut findings)),* }
                findings.into_result()
            }

            pub(crate) fn read(kind: Kind, value: Value, typing: Typing) -> Result<Resource, ReadError> {
                match kind {
                    $(Kind::$variant => read::read(value, typing).map(|r| Resource::$variant(Box::new(r)))),*
                }
            }
        }

        impl Serialize for Resource {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Resource::$variant(r) => r.serialize(serializer)),* }
            }
        }

        $(
            impl From<$variant> for Resource {
                fn from(resource: $variant) -> Resource {
                    Resource::$variant(Box::new(resource))
                }
            }
        )*
    };
}

for_each_kind!(declare_resource);

impl Resource {
    /// Reads a JSON value; fields are checked strictly, values only as far as their type says.
    pub fn from_value(value: Value) -> Result<Resource, ReadError> {
        Resource::read(kind_of(&value)?, value, Typing::Exact)
    }

    /// Reads JSON text; fields are checked strictly, values only as far as their type says.
    pub fn from_json(text: &str) -> Result<Resource, ReadError> {
        let value = serde_json::from_str(text).map_err(|e| ReadError::Syntax(e.to_string()))?;
        Resource::from_value(value)
    }

    /// Reads what a store holds, where a newer version may have written fields that this one does not know: those are
    /// left out, and their paths returned; [`Resource::to_stored_json`] writes them again. A rule of a policy that has
    /// such a field and lets packets on matches nothing. Anything else that does not fit is an error as in
    /// [`Resource::from_json`].
    pub fn from_stored_json(text: &str) -> Result<(Resource, Vec<String>), ReadError> {
        match Resource::from_json(text) {
            Err(ReadError::Field(error)) if error.is_unknown_field() => Resource::from_newer(text),
            other => other.map(|resource| (resource, Vec::new())),
        }
    }

    fn from_newer(text: &str) -> Result<(Resource, Vec<String>), ReadError> {
        let document: Value = serde_json::from_str(text).map_err(|e| ReadError::Syntax(e.to_string()))?;
        let kind = kind_of(&document)?;
        let mut value = document.clone();
        let mut unknown = Vec::new();
        loop {
            match Resource::read(kind, value.clone(), Typing::Exact) {
                Err(ReadError::Field(error)) if error.is_unknown_field() => {
                    match read::remove(&mut value, &error.path) {
                        None => return Err(ReadError::Field(error)),
                        // A member that is null says nothing, whatever its name.
                        Some(Value::Null) => {}
                        Some(_) => unknown.push(error.path),
                    }
                }
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        newer::close(&mut value, &unknown);
        let mut resource = Resource::read(kind, value, Typing::Exact)?;
        resource.metadata_mut().newer = Newer::of(document);
        Ok((resource, unknown))
    }

    /// Compact JSON for a store: as [`Resource::to_json`], with what a newer version had stored.
    pub fn to_stored_json(&self) -> String {
        let Some(stored) = self.metadata().newer.document() else { return self.to_json() };
        match Resource::from_stored_json(&stored.to_string()) {
            Ok((known, _)) => json::go_json(&newer::keep_unknown(stored, &known.to_value(), self.to_value())),
            Err(_) => self.to_json(),
        }
    }

    /// Compact JSON, byte for byte as upstream writes it.
    pub fn to_json(&self) -> String {
        json::go_json(self)
    }

    /// The resource as a JSON value.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("every map key of a resource is a string")
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Resource::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn kind_of(value: &Value) -> Result<Kind, ReadError> {
    let written = value.get("kind").unwrap_or(&Value::Null);
    match written {
        Value::String(name) => match Kind::INTERNAL.iter().find(|kind| kind.name() == name) {
            Some(internal) => Ok(*internal),
            None => Ok(Kind::from_name(name)?),
        },
        Value::Null => Err(ReadError::Kind(UnknownKind { word: String::new(), nearest: None })),
        other => Err(ReadError::Kind(UnknownKind { word: other.to_string(), nearest: None })),
    }
}
