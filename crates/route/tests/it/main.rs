//! The public face of the crate: tables built from rules, asked with requests.

mod build;
mod gateway_api;
mod reference;
