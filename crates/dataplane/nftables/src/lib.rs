//! Rulesets to the kernel's nf_tables in one transaction, by netlink alone.
