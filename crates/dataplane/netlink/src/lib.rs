//! Links, addresses, routes and neighbours of the kernel over netlink.
