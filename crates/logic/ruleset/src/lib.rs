//! Desired policy to backend-neutral chains, sets and maps.
