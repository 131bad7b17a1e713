//! Project tasks: check, test, bench, gen.

fn main() {}
