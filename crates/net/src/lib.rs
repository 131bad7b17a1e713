//! Listen, accept, socket options, splice.
