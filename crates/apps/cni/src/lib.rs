//! The CNI plugins calico and calico-ipam: small clients of the node's socket.
