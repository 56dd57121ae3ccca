//! The label selector language: parse, canonical text and id, match.
