//! The apply loop and the ports of a dataplane.
