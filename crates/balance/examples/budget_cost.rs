//! What a retry budget costs: `cargo run --profile fast --example budget_cost -p rhumb-balance`.
#![allow(clippy::print_stdout)] // its output is its purpose

use std::hint::black_box;
use std::time::Instant;

use rhumb_balance::{BudgetLimits, Nanos, RetryBudget};

const CALLS: u64 = 50_000;

fn main() {
    let budget = RetryBudget::new(BudgetLimits::default());
    // A request each 10 µs: a new slot each hundred thousand.
    let count = time(|i| budget.count(black_box(0), Nanos(i * 10_000)));
    println!("{:<40} {count:>8.1} ns", "a request that is counted");
    let spend = time(|i| _ = black_box(budget.spend(Nanos(i * 10_000))));
    println!("{:<40} {spend:>8.1} ns", "a retry that is asked for");
}

/// Nanoseconds per call: the best of many short rounds, as other programs run too.
fn time(mut call: impl FnMut(u64)) -> f64 {
    (0..25)
        .map(|round| {
            let start = Instant::now();
            for i in 0..CALLS {
                call(round * CALLS + i);
            }
            start.elapsed().as_secs_f64() * 1e9 / CALLS as f64
        })
        .fold(f64::INFINITY, f64::min)
}
