//! JSON values as serde reads them, with the place of the first fault: one reader for all kinds, so that their code is
//! made once.
//!
//! Read loosely, as Go's YAML reader hands them to a typed structure, numbers and truth values become the text that
//! they print as where text is expected, so that a label `tier: 1` is the text `1`.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Number, Value, map};

use crate::read::Typing;

/// A value to be read, and how exactly types must fit.
pub(crate) struct Walk {
    pub(crate) value: Value,
    pub(crate) typing: Typing,
}

/// Why a value can't be read, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Serde's sentence.
    pub(crate) message: String,
    /// The steps to the place, the last one first: `.name` or `[index]`.
    steps: Vec<String>,
}

impl Fault {
    /// The place, such as `spec.ingress[0].action`; empty for the whole value.
    pub(crate) fn path(&self) -> String {
        let path: String = self.steps.iter().rev().map(String::as_str).collect();
        path.strip_prefix('.').unwrap_or(&path).to_owned()
    }

    fn below(mut self, step: String) -> Fault {
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault { message: message.to_string(), steps: Vec::new() }
    }
}

/// The items of a list.
struct Items {
    rest: std::vec::IntoIter<Value>,
    index: usize,
    typing: Typing,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        let read = seed.deserialize(Walk { value, typing: self.typing });
        read.map(Some).map_err(|fault| fault.below(format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The members of a mapping.
struct Members {
    rest: map::IntoIter,
    /// The fields of the structure that is read; none for a map from names to values.
    fields: Option<&'static [&'static str]>,
    /// The value of the key that was told last, with that key.
    next: Option<(String, Value)>,
    typing: Typing,
}

impl<'de> MapAccess<'de> for Members {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        // A field that is null has its default, as for Go; what is no field has to be told whatever its value.
        let absent =
            |key: &str, value: &Value| value.is_null() && self.fields.is_some_and(|known| known.contains(&key));
        let Some((key, value)) = self.rest.find(|(key, value)| !absent(key, value)) else { return Ok(None) };
        let told = seed.deserialize(Walk { value: Value::String(key.clone()), typing: self.typing });
        let told = told.map_err(|fault| fault.below(format!(".{key}")))?;
        self.next = Some((key, value));
        Ok(Some(told))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let (key, mut value) = self.next.take().ok_or_else(|| Fault::custom("a value was asked for before its key"))?;
        // An entry of a map that is null is the empty text, as for Go: all maps of resources are from text to text.
        if value.is_null() && self.fields.is_none() {
            value = Value::String(String::new());
        }
        seed.deserialize(Walk { value, typing: self.typing }).map_err(|fault| fault.below(format!(".{key}")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// A word of an enumeration, with what belongs to it.
struct Variant {
    word: String,
    content: Option<Value>,
    typing: Typing,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Fault;
    type Variant = Content;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Content), Fault> {
        let Variant { word, content, typing } = self;
        let told = seed.deserialize(Walk { value: Value::String(word), typing })?;
        Ok((told, Content { value: content, typing }))
    }
}

/// What belongs to a word of an enumeration.
struct Content {
    value: Option<Value>,
    typing: Typing,
}

impl Content {
    fn walk(self) -> Walk {
        Walk { value: self.value.unwrap_or_default(), typing: self.typing }
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(Fault::custom("invalid type: map, expected a word")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.walk())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.walk().deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.walk().deserialize_any(visitor)
    }
}

/// Reads what is neither a list nor a mapping.
fn one<'de, V: Visitor<'de>>(value: Value, visitor: V) -> Result<V::Value, Fault> {
    match value {
        Value::Null => visitor.visit_unit(),
        Value::Bool(truth) => visitor.visit_bool(truth),
        Value::Number(found) => number(&found, visitor),
        Value::String(text) => visitor.visit_string(text),
        other @ (Value::Array(_) | Value::Object(_)) => Err(Fault::invalid_type(unexpected(&other), &visitor)),
    }
}

fn number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Fault> {
    if let Some(whole) = number.as_u64() {
        return visitor.visit_u64(whole);
    }
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => visitor.visit_i64(whole),
        (None, Some(real)) => visitor.visit_f64(real),
        (None, None) => Err(Fault::custom(format!("invalid value: {number}, expected a number"))),
    }
}

macro_rules! as_any {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.deserialize_any(visitor)
        })*
    };
}

macro_rules! as_one {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            one(self.value, visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Walk {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Walk { value, typing } = self;
        match value {
            Value::Array(items) => {
                let length = items.len();
                let mut items = Items { rest: items.into_iter(), index: 0, typing };
                let read = visitor.visit_seq(&mut items)?;
                if items.rest.len() > 0 {
                    let expected = format!("a list of {} items", length - items.rest.len());
                    return Err(Fault::custom(format!("invalid value: a list of {length} items, expected {expected}")));
                }
                Ok(read)
            }
            Value::Object(members) => {
                visitor.visit_map(Members { rest: members.into_iter(), fields: None, next: None, typing })
            }
            scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => one(scalar, visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.typing, self.value) {
            (Typing::Loose, Value::Bool(truth)) => visitor.visit_string(truth.to_string()),
            (Typing::Loose, Value::Number(found)) => visitor.visit_string(found.to_string()),
            (_, value) => one(value, visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let typing = self.typing;
        // A list of the members' values, as serde would take too, is no form of any resource.
        match self.value {
            Value::Object(members) => {
                visitor.visit_map(Members { rest: members.into_iter(), fields: Some(fields), next: None, typing })
            }
            other => Err(Fault::invalid_type(unexpected(&other), &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Walk { value, typing } = self;
        match value {
            Value::String(word) => visitor.visit_enum(Variant { word, content: None, typing }),
            Value::Object(members) if members.len() == 1 => {
                let (word, content) = members.into_iter().next().expect("there is one");
                visitor.visit_enum(Variant { word, content: Some(content), typing })
            }
            other => Err(Fault::invalid_type(unexpected(&other), &"string or map")),
        }
    }

    as_one! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_unit
        deserialize_identifier
    }

    as_any! {
        deserialize_bytes deserialize_byte_buf deserialize_seq deserialize_map deserialize_ignored_any
    }
}

fn unexpected(value: &Value) -> serde::de::Unexpected<'_> {
    use serde::de::Unexpected;
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(truth) => Unexpected::Bool(*truth),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(whole), _, _) => Unexpected::Unsigned(whole),
            (None, Some(whole), _) => Unexpected::Signed(whole),
            (None, None, Some(real)) => Unexpected::Float(real),
            (None, None, None) => Unexpected::Other("number"),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}
