//! Prints the JSON Schema of configuration files.

#![allow(clippy::print_stdout)]

fn main() {
    println!("{:#}", rhumb_model::schema::file_schema(&[]));
}
