//! The corridor a request walks through.
