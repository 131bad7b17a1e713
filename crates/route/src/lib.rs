//! Compiled request matching.
