//! Address management as pure compare-and-swap steps.
