//! `rhumb explain`.

use std::net::IpAddr;

use rhumb_balance::Nanos;

use super::{Exit, Format};
use crate::config::{Config, ConfigArg, paint};
use crate::explain::{Question, explain, to_json, to_text};
use crate::print;

/// Explain what happens to a request
///
/// Prints the listener, the route and why others lost, the policies in order with where they come from, what is
/// forwarded, the backends with their shares and endpoints, and the timeouts. Nothing is sent.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb explain GET https://api.example.com/users/7
  rhumb explain POST http://localhost:8080/orders -H 'Content-Type: application/json' -c rhumb.yaml")]
pub(crate) struct Args {
    /// Method of the request
    method: String,
    /// URL of the request, with the listener's port when it is not the usual one
    url: String,
    /// A header of the request; Host takes the place of the URL's host
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Address of the client
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    #[command(flatten)]
    config: ConfigArg,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let question = Question::parse(&args.method, &args.url, &args.headers, args.client);
    let (question, path) = match (question, args.config.path()) {
        (Ok(question), Ok(path)) => (question, path),
        (Err(error), _) => return usage(&error),
        (_, Err(error)) => return usage(&error),
    };
    let reading = Config::at(path).read(None, Nanos::default());
    if reading.errors() > 0 {
        print::err(&reading.report(paint(&std::io::stderr())));
        return Ok(Exit::Invalid);
    }
    let answer = match explain(&reading.plan, &question) {
        Ok(answer) => answer,
        Err(error) => return usage(&error),
    };
    print::out(&match args.format {
        Format::Text => to_text(&answer),
        Format::Json => format!("{:#}\n", to_json(&answer)),
    })?;
    Ok(Exit::Ok)
}

fn usage(error: &dyn std::fmt::Display) -> anyhow::Result<Exit> {
    print::err(&format!("rhumb: {error}\n"));
    Ok(Exit::Usage)
}
