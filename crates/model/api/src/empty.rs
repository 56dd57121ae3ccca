//! When Go's `omitempty` leaves a field out.

use std::collections::BTreeMap;

/// A value that knows whether Go would call it empty.
pub(crate) trait Empty {
    fn is_empty_value(&self) -> bool;
}

/// For `skip_serializing_if`.
pub(crate) fn empty<T: Empty>(value: &T) -> bool {
    value.is_empty_value()
}

impl Empty for String {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl Empty for bool {
    fn is_empty_value(&self) -> bool {
        !self
    }
}

impl<T> Empty for Option<T> {
    fn is_empty_value(&self) -> bool {
        self.is_none()
    }
}

impl<T> Empty for Vec<T> {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Empty for BTreeMap<K, V> {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

macro_rules! zero_is_empty {
    ($($number:ty),*) => {
        $(impl Empty for $number {
            fn is_empty_value(&self) -> bool {
                *self == 0
            }
        })*
    };
}

zero_is_empty!(u8, u16, u32, u64, i32, i64);
