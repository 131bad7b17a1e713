//! What was counted, kept: golden signals, usage and events of the last hours and days.
//!
//! [`History`] is asked and told by any thread; [`History::look`] is called every [`LOOK`] by a thread of its own. What it
//! takes is bounded: what is oldest goes first. It knows no clock, no sockets and no documents: times come in as arguments.
//! Start reading at [`history`].

mod codec;
mod frame;
mod tens;
mod shelf;
mod usage;
pub mod apis;
pub mod openapi;
pub mod history;
pub mod answer;

pub use answer::{By, Event, Level};
pub use apis::Finder;
pub use history::fleet::{Reporter, Taken};
pub use history::outbox::Ten;
pub use history::{History, LOOK};
pub use shelf::ShelfError;
pub use usage::{Column, Query, Row, Step, Usage};
