//! `rhumb demo`: sample backends and a small configuration, so that the first minute has something to look at.

pub(crate) mod backend;
pub(crate) mod sample;
pub(crate) mod mesh;
