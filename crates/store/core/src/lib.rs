//! The store port: get, list, write-if-revision, watch; memory store; conformance suite.
