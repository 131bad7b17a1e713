//! Drives codecs over a stream.
