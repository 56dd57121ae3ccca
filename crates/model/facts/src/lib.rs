//! The input contract of the logic: typed keys and values, revisions, updates.
