//! Documents to plan: attach, check, compile.
