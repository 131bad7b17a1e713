//! Expressions in the Common Expression Language (CEL, <https://cel.dev>): read and checked once, evaluated per request.
//!
//! Owns: the grammar ([`parse`]), the check against the attributes that a place offers ([`schema`]), and evaluation over
//! borrowed values ([`value`]): strings of a request are compared where they lie. Everything is bounded: the length and
//! depth of an expression when it is read, the steps of its evaluation when it runs. Knows nothing of requests; who
//! evaluates says what an attribute holds ([`value::Object`]).
//!
//! Left out of the language, and refused with a reason: messages (`Type{field: value}`), optional selection (`?.`), and
//! names of time zones (offsets such as `+02:00` work).
//!
//! Start with [`Program::compile`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod token;
mod ast;
mod parse;
pub mod schema;
mod check;
pub mod value;
mod time;
mod functions;
mod eval;
mod program;

pub use eval::{EvalError, STEPS_LIMIT};
pub use parse::{DEPTH_LIMIT, LENGTH_LIMIT, NODES_LIMIT};
pub use program::{CompileError, Program};
pub use schema::{Field, Kind, Schema};
pub use value::{Object, Value};
