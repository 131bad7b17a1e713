//! What users write: documents with their origin.
//!
//! Owns the value tree of YAML and JSON ([`value`], [`yaml`]), the typed documents of Gateway API and of our own
//! kinds ([`doc`], [`kind`]), the short form that adapts to them ([`short`]), the mistakes that people make in all of
//! it ([`diag`]) and the JSON Schema of it ([`schema`]). Every value knows where it was written ([`span`]).
//!
//! Knows no files and no network: a [`expand::Lookup`] brings variables and the content of files. Does not know
//! whether references lead anywhere, nor what a policy's body means: that is `resolve` and `policy`.
//!
//! Start reading at [`read()`]: text in, documents and mistakes out.

mod diag;
mod span;
pub mod value;
pub mod yaml;
pub mod expand;
pub mod decode;
pub mod scalar;
pub mod kind;
pub mod doc;
pub mod short;
pub mod emit;
pub mod schema;
mod read;

pub use diag::{Diag, DocId, Origin, Paint, Rule, Severity, render, render_all};
pub use doc::{Doc, Spec};
pub use read::{Read, adapt, listeners, read};
pub use span::{Position, Source, Span, Spanned};
