//! Desired against observed: the smallest edits in a safe order, with retry and back-off.
