//! The `rhumb` binary: command line and wiring. The only crate that sees both halves, the one that reads configuration
//! and the one that carries traffic.
//!
//! [`cli`] has one file per verb. `rhumb run` is [`run`]: [`config`] finds, reads and compiles the configuration,
//! [`supervisor`] owns the sockets and the worker threads, [`reload`] takes changes over, [`signal`] and [`admin`] are
//! the two ways to steer a running process. Everything of the control side lives on the main thread; nothing here is on
//! the path of a request.

mod cli;
mod logs;
mod config;
mod run;
mod upgrade;
mod systemd;
mod pid_file;
mod memory;
mod scales;
mod supervisor;
mod readiness;
mod reload;
mod names;
mod ward;
mod guest;
mod capture;
mod access_log;
mod gauges;
mod signals;
mod identity;
mod health;
mod signal;
mod admin;
mod explain;
mod demo;
mod control;
mod embedded;
mod errand;
mod remote;
mod report;
mod lookups;
mod places;
mod vitals;
mod diff;
mod print;
#[cfg(test)]
mod simulation;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    if let Some(code) = guest::begin() {
        return code;
    }
    cli::main().into()
}
