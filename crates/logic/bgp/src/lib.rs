//! BGP: codec, session machine, RIB and best path; no clock and no socket.
