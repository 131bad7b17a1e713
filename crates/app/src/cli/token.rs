//! `rhumb token`: proofs for workloads that join a mesh, and for people and programs that use the admin API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use rhumb_base::unit::parse_duration;
use rhumb_identity::{Authority, Tokens, system_clock};
use serde_json::{Value, json};

use super::documents::{At, escaped, plain};
use super::store::StoreArgs;
use super::{Exit, Format};
use crate::admin::client::Extra;
use crate::admin::role::Role;
use crate::health::unix_now;
use crate::print;

/// Make join tokens, with which workloads join the mesh, and tokens for the admin API
///
/// A join token is good once, for one service account, until it ends. It carries the hash of the mesh's root, so that who joins
/// with it knows the control plane on the first connection.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb token create --namespace shop --service-account orders > orders.token
  rhumb token admin create --role viewer --name ci > ci.token")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a join token and print it
    Create(Create),
    /// Tokens for the admin API of a running process
    Admin(AdminArgs),
}

#[derive(clap::Args, Debug)]
struct AdminArgs {
    #[command(subcommand)]
    what: AdminWhat,
}

#[derive(Subcommand, Debug)]
enum AdminWhat {
    /// Make a token and print it; it is not shown again
    Create(CreateAdmin),
    /// List tokens
    List(ListAdmin),
    /// Take a token back; sessions that were begun with it end
    Revoke(RevokeAdmin),
}

#[derive(clap::Args, Debug)]
struct CreateAdmin {
    /// What it opens: a viewer looks, an editor changes documents and looks at requests, an admin does everything
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// Its name, for the audit log
    #[arg(long, value_name = "NAME")]
    name: String,
    /// How long it is good. Default: until it is taken back
    #[arg(long, value_name = "DURATION", value_parser = life)]
    life: Option<Duration>,
    #[command(flatten)]
    at: At,
}

#[derive(clap::Args, Debug)]
struct ListAdmin {
    /// How it is printed
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    #[command(flatten)]
    at: At,
}

#[derive(clap::Args, Debug)]
struct RevokeAdmin {
    /// Its name
    name: String,
    #[command(flatten)]
    at: At,
}

#[derive(clap::Args, Debug)]
struct Create {
    /// Namespace of the workload
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Service account of the workload
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: String,
    /// How long it is good; at most as long as an SVID lives
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = life)]
    life: Duration,
    /// Directory of the certificate authority
    #[arg(long, value_name = "DIR", env = "RHUMB_AUTHORITY", default_value = super::cert::DIRECTORY)]
    authority: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

fn life(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(life) if life >= Duration::from_secs(1) => Ok(life),
        Ok(_) => Err("a second or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.what {
        What::Create(create) => join(create),
        What::Admin(args) => match &args.what {
            AdminWhat::Create(args) => create_admin(args),
            AdminWhat::List(args) => list_admin(args),
            AdminWhat::Revoke(args) => revoke_admin(args),
        },
    }
}

fn create_admin(args: &CreateAdmin) -> anyhow::Result<Exit> {
    let content = json!({
        "name": args.name, "role": args.role.as_str(), "expiresInSeconds": args.life.map(|life| life.as_secs()),
    });
    let extra = Extra { content: Some(content.to_string()), ..Extra::default() };
    let Some(made) = args.at.ask("POST", "/api/v1/tokens", &extra)? else { return Ok(Exit::Runtime) };
    print::err(&format!("for the role {}, named {}\n", args.role.as_str(), args.name));
    print::out(&format!("{}\n", plain(&made["token"])))?;
    Ok(Exit::Ok)
}

fn list_admin(args: &ListAdmin) -> anyhow::Result<Exit> {
    let Some(answer) = args.at.ask("GET", "/api/v1/tokens", &Extra::default())? else {
        return Ok(Exit::Runtime);
    };
    let now = unix_now();
    let ago = |at: &Value| {
        at.as_u64().map_or_else(|| "-".to_owned(), |at| format!("{} s ago", now.saturating_sub(at)))
    };
    let row = |token: &Value| {
        let ends = token["expiresAt"].as_u64();
        let ends = ends.map_or_else(|| "never".to_owned(), |at| format!("in {} s", at.saturating_sub(now)));
        [
            plain(&token["name"]),
            plain(&token["role"]),
            ago(&token["createdAt"]),
            ends,
            ago(&token["lastUsedAt"]),
        ]
    };
    let rows: Vec<_> = answer["tokens"].as_array().into_iter().flatten().map(row).collect();
    print::out(&match args.format {
        Format::Json => format!("{:#}\n", answer["tokens"]),
        Format::Text => print::table(["NAME", "ROLE", "MADE", "ENDS", "LAST USED"], &rows),
    })?;
    Ok(Exit::Ok)
}

fn revoke_admin(args: &RevokeAdmin) -> anyhow::Result<Exit> {
    let path = format!("/api/v1/tokens/{}", escaped(&args.name));
    let done = args.at.ask("DELETE", &path, &Extra::default())?;
    Ok(if done.is_some() { Exit::Ok } else { Exit::Runtime })
}

fn join(create: &Create) -> anyhow::Result<Exit> {
    let now = system_clock()();
    let authority = Authority::attach_at(create.store.place(&create.authority, false)?, now)?;
    let id = authority.trust_domain().workload(&create.namespace, &create.service_account);
    let id = id.context("namespace or service account")?;
    // Every root that could sign until it ends is in the bundle of now only that long.
    let longest = authority.lifetimes().leaf;
    if create.life > longest {
        print::err(&format!(
            "rhumb: a token is good for at most {} s, as long as an SVID lives\n",
            longest.as_secs()
        ));
        return Ok(Exit::Usage);
    }
    let tokens = Tokens::open(authority.place())?;
    let token = tokens.create(&id, &authority.bundle(now)?, now + create.life.as_secs(), now)?;
    print::err(&format!("for {id}, good once within {} s\n", create.life.as_secs()));
    print::out(&format!("{}\n", token.text()))?;
    Ok(Exit::Ok)
}
