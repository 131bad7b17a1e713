//! `rhumb try`: a request that a running process sends to itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use rhumb_plan::process::DEFAULT_ADMIN;
use serde_json::{Value, json};

use super::documents::plain;
use super::look::trace_text;
use super::{Exit, Output};
use crate::admin::client::{self, Extra, NoAnswer};
use crate::print;

/// Send a request through a running process, and show what became of it
///
/// The process sends it to its own listener, and tells the answer and every step on the way: the rule that took it, what each
/// policy decided and changed, each attempt. `rhumb explain` tells what would happen and sends nothing. Needs the role editor.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb try GET http://localhost:8080/orders/7
  rhumb try POST https://api.example.com/orders -H 'Content-Type: application/json' -d '{\"item\": 5}' -o json")]
pub(crate) struct Args {
    /// Method of the request
    method: String,
    /// URL of the request, with the listener's port when it is not the usual one
    url: String,
    /// A header of the request; Host takes the place of the URL's host
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Content of the request
    #[arg(short = 'd', long, value_name = "TEXT")]
    data: Option<String>,
    /// Admin listener of the running process
    #[arg(long, value_name = "ADDRESS", env = "RHUMB_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// File with a token of an editor or an admin. Default: found by itself
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// How it is printed
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    format: Output,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let content = json!({
        "method": args.method, "url": args.url, "headers": args.headers, "body": args.data.as_deref().unwrap_or_default(),
    });
    let extra = Extra { content: Some(content.to_string()), ..Extra::default() };
    let token = args.admin_token_file.as_deref();
    let (status, text) = client::request("POST", args.admin, "/api/v1/try", token, &extra)?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if status == 400 {
        print::err(&format!("rhumb: {}\n", plain(&answer["detail"])));
        return Ok(Exit::Usage);
    }
    if status != 200 {
        return Err(NoAnswer::Status(status, text).into());
    }
    print::out(&match args.format {
        Output::Text => told(&answer),
        Output::Json => format!("{answer:#}\n"),
        Output::Yaml => super::yaml(&answer),
    })?;
    Ok(Exit::Ok)
}

fn told(answer: &Value) -> String {
    let took = answer["tookMs"].as_f64().unwrap_or_default();
    let mut out = format!("{} in {took:.1} ms through {}\n", answer["status"], plain(&answer["listener"]));
    for field in answer["headers"].as_array().into_iter().flatten() {
        out.push_str(&format!("{}: {}\n", plain(&field[0]), plain(&field[1])));
    }
    let body = answer["body"].as_str().unwrap_or_default();
    if !body.is_empty() {
        // What a terminal would take for an order is shown as what it is.
        let is_plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
        let body: String = body.chars().map(|c| if is_plain(c) { c } else { '\u{fffd}' }).collect();
        out.push_str(&format!("\n{}\n", body.trim_end()));
    }
    if answer["truncated"] == true {
        out.push_str("… (there is more)\n");
    }
    if !answer["trace"].is_null() {
        out.push_str(&format!("\n{}", trace_text(&answer["trace"])));
    }
    out
}
