//! Desired routes to the kernel, through the reconcile port.
