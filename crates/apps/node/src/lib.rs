//! The node agent: start-up, calculation, dataplane, BGP speaker, CNI service, status.
