//! The oracle: evaluates one packet against the desired tables.
