//! Project tasks: `cargo xtask check | test | bench | gen | ui`. Start reading at [`Task`].

mod bench;
mod check;
mod dashboard;
mod edges;
mod generated;
mod peers;
mod release;
mod run;
mod suite;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Project tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Formatting, lints, docs, crate edges, generated files, supply chain, scripts: everything that is not a test.
    Check {
        /// Build cargo-deny into the cache directory when it is not installed (some minutes, once).
        #[arg(long)]
        install_deny: bool,
        /// Run only the named steps.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// All tests; installs the independent peers they talk to (curl, nginx, nghttp2, openssl, wrk, Redis, Python packages).
    Test {
        /// Leave out the tests of the binary over real sockets.
        #[arg(long)]
        unit: bool,
        /// Passed on to the test runner.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The load bench against nginx, HAProxy and Envoy; writes BENCHMARKS.md.
    Bench {
        /// Measure what `cargo build --release` makes, not the binary of `cargo xtask release`.
        #[arg(long)]
        plain: bool,
        /// Passed on to bench/run.py.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The binary as it is given to users: built with a profile of what runs under load (two builds, some minutes).
    Release,
    /// Writes what is made from the code: JSON Schema, shell completions.
    Gen {
        /// Write nothing; fail when a file in the tree differs.
        #[arg(long)]
        check: bool,
    },
    /// Builds the dashboard into ui/dist.
    Ui {
        /// Write nothing; fail when a file in the tree differs.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    std::env::set_current_dir(run::root())?;
    match Cli::parse().task {
        Task::Check { install_deny, only } => check::check(install_deny, &only),
        Task::Test { unit, args } => suite::test(unit, &args),
        Task::Bench { plain, args } => bench::bench(plain, &args),
        Task::Release => release::release().map(|_| ()),
        Task::Gen { check } => generated::generate(check),
        Task::Ui { check } => dashboard::build(check),
    }
}
