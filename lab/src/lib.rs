//! The lab: nodes, routers and pods out of network namespaces, and the connectivity matrix.
