//! calicoctl: resources, IPAM and node status from the command line.
