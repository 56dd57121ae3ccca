//! Facts to desired tables, incrementally.
