//! Endpoints and the algorithms that choose among them.
