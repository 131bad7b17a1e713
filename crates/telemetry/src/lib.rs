//! One record per exchange: access log, metrics.
