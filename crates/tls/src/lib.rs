//! TLS on the data path, certificates and their swap.
