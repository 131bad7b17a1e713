//! The command line. One file per verb; this one has what they share: how verbs are named, how errors are told, and
//! what the exit code means.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::admin::client::TlsArgs;
use crate::print;

mod run;
mod check;
mod adapt;
mod schema;
mod explain;
mod status;
mod drain;
mod intercept;
mod sidecar;
mod issuer;
mod kubernetes;
mod store;
mod token;
mod cert;
mod demo;
mod version;
mod completion;
mod control;
mod documents;
mod apis;
mod look;
mod figures;
mod bundle;
mod attempt;
mod xds;
mod learn;

pub(crate) use store::{SharedStore, StoreArgs};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Ok,
    /// 1: something went wrong that is not the configuration's fault.
    Runtime,
    /// 2: the command line is wrong.
    Usage,
    /// 3: the configuration is wrong.
    Invalid,
    /// As the application of a sidecar ended.
    Guest(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::SUCCESS,
            Exit::Runtime => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Invalid => Self::from(3),
            Exit::Guest(code) => Self::from(code),
        }
    }
}

/// How a verb prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How a verb prints that asks a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// A value as YAML.
fn yaml(value: &serde_json::Value) -> String {
    let source = Arc::new(rhumb_model::Source::new("answer", 0, value.to_string()));
    rhumb_model::emit::to_yaml(&rhumb_model::yaml::parse(&source, None, &mut Vec::new()))
}

/// Rhumb: an API gateway and a service mesh in one binary.
#[derive(Parser, Debug)]
#[command(
    name = "rhumb",
    version,
    about = "Rhumb: an API gateway and a service mesh in one binary",
    arg_required_else_help = true,
    after_help = "\
Begin with:
  rhumb demo                              sample backends behind a gateway on port 8080
  rhumb demo mesh                         services that call each other through a mesh
  rhumb run -c rhumb.yaml                 a gateway of your own
  rhumb explain GET http://localhost/x    which route a request takes, and why

Exit codes: 0 ok, 1 runtime error, 2 wrong usage, 3 invalid configuration.
Signals of a running rhumb: SIGHUP reload, SIGTERM drain and end, SIGUSR1 reopen log files,
SIGUSR2 upgrade in place."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Run(run::Args),
    Check(check::Args),
    Adapt(adapt::Args),
    Schema(schema::Args),
    Explain(explain::Args),
    Status(status::StatusArgs),
    Endpoints(status::EndpointsArgs),
    Apis(apis::Args),
    Top(figures::TopArgs),
    Edges(figures::EdgesArgs),
    Tap(look::TapArgs),
    Trace(look::TraceArgs),
    Try(attempt::Args),
    Bundle(bundle::Args),
    Drain(drain::Args),
    Sidecar(sidecar::Args),
    Intercept(intercept::Args),
    Control(control::Args),
    Apply(documents::ApplyArgs),
    Get(documents::GetArgs),
    Delete(documents::DeleteArgs),
    History(documents::HistoryArgs),
    Diff(documents::DiffArgs),
    Rollback(documents::RollbackArgs),
    Issuer(issuer::Args),
    Token(token::Args),
    Cert(cert::Args),
    Learn(learn::Args),
    XdsBootstrap(xds::BootstrapArgs),
    XdsAgent(xds::AgentArgs),
    Demo(demo::Args),
    Version(version::Args),
    Completion(completion::Args),
}

/// The verbs whose processes stay. They are read without the others: what is made of all verbs to read one of them is half a
/// megabyte of the program, which a process beside each workload would have in memory for nothing.
#[derive(Parser, Debug)]
#[command(name = "rhumb")]
enum Staying {
    Run(run::Args),
    Sidecar(sidecar::Args),
}

impl Staying {
    /// What the command line says, if it is one of these and nothing is wrong with it or to be explained.
    fn read(line: impl IntoIterator<Item = OsString, IntoIter: Clone>) -> Option<Self> {
        let line = line.into_iter();
        let verb = line.clone().nth(1)?;
        (verb == "run" || verb == "sidecar").then(|| Self::try_parse_from(line).ok()).flatten()
    }
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> Exit {
    let line: Vec<OsString> = std::env::args_os().collect();
    let done = match Staying::read(line) {
        Some(Staying::Run(args)) => run::run(args),
        Some(Staying::Sidecar(args)) => sidecar::run(args),
        None => return any(),
    };
    ended(done)
}

/// Any verb.
fn any() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, the rest is wrong usage; clap knows which stream is right.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    cli.tls.use_for_all();
    let done = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Adapt(args) => adapt::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Status(args) => status::status(&args),
        Verb::Endpoints(args) => status::endpoints(&args),
        Verb::Apis(args) => apis::run(&args),
        Verb::Top(args) => figures::top(&args),
        Verb::Edges(args) => figures::edges(&args),
        Verb::Tap(args) => look::tap(&args),
        Verb::Trace(args) => look::trace(&args),
        Verb::Try(args) => attempt::run(&args),
        Verb::Bundle(args) => bundle::run(&args),
        Verb::Drain(args) => drain::run(&args),
        Verb::Sidecar(args) => sidecar::run(args),
        Verb::Intercept(args) => intercept::run(&args),
        Verb::Control(args) => control::run(args),
        Verb::Apply(args) => documents::apply(&args),
        Verb::Get(args) => documents::get(&args),
        Verb::Delete(args) => documents::delete(&args),
        Verb::History(args) => documents::history(&args),
        Verb::Diff(args) => documents::diff(&args),
        Verb::Rollback(args) => documents::rollback(&args),
        Verb::Issuer(args) => issuer::run(args),
        Verb::Token(args) => token::run(&args),
        Verb::Cert(args) => cert::run(&args),
        Verb::Learn(args) => learn::run(&args),
        Verb::XdsBootstrap(args) => xds::bootstrap(&args),
        Verb::XdsAgent(args) => xds::agent(args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Version(args) => version::run(&args),
        Verb::Completion(args) => completion::run(&args),
    };
    ended(done)
}

/// How a verb ended.
fn ended(done: anyhow::Result<Exit>) -> Exit {
    done.unwrap_or_else(|error| {
        print::err(&format!("rhumb: {error:#}\n"));
        Exit::Runtime
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_agrees_with_itself() {
        Cli::command().debug_assert();
    }

    #[test]
    fn verbs_that_stay_are_read_by_themselves_as_among_all() {
        let read = |line: &[&str]| Staying::read(line.iter().map(OsString::from).collect::<Vec<_>>());
        let lines: [&[&str]; 2] = [
            &["rhumb", "run", "-c", "rhumb.yaml", "--partial"],
            &[
                "rhumb",
                "sidecar",
                "--service",
                "orders",
                "--port",
                "80=9000",
                "--capture",
                "--",
                "./orders",
                "-v",
            ],
        ];
        for line in lines {
            let alone = format!("{:?}", read(line).expect("a verb that stays"));
            let among_all = format!("{:?}", Cli::try_parse_from(line).expect("a verb").verb);
            assert_eq!(alone, among_all);
        }
        for line in [
            &["rhumb"][..],
            &["rhumb", "check"],
            &["rhumb", "run", "--help"],
            &["rhumb", "run", "--nonsense"],
        ] {
            assert!(read(line).is_none(), "{line:?}");
        }
    }

    #[test]
    fn each_verb_has_help_and_an_example() {
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            assert!(verb.get_about().is_some(), "{name} has no help");
            let example = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.contains(&format!("rhumb {name}")), "{name} has no example");
        }
    }
}
