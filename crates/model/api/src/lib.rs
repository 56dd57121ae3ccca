//! The projectcalico.org/v3 kinds: fields, defaults, validation, text forms.
