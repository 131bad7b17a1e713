//! Sans-io protocols: bytes in, events out.
