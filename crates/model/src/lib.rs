//! What users write: documents with their origin.
