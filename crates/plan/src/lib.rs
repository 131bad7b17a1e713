//! The compiled, immutable configuration and its swap cell.
