//! `rhumb token`: proofs for workloads that join a mesh.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use rhumb_base::unit::parse_duration;
use rhumb_identity::{Authority, Tokens, system_clock};

use super::Exit;
use crate::print;

/// Make join tokens, with which workloads join the mesh
///
/// A token is good once, for one service account, until it ends. It carries the hash of the mesh's root, so that who joins
/// with it knows the control plane on the first connection.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  rhumb token create --namespace shop --service-account orders > orders.token")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a token and print it
    Create(Create),
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
}

fn life(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(life) if life >= Duration::from_secs(1) => Ok(life),
        Ok(_) => Err("a second or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let What::Create(create) = &args.what;
    let now = system_clock()();
    let authority = Authority::attach(&create.authority, now)?;
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
    let tokens = Tokens::open(authority.directory())?;
    let token = tokens.create(&id, &authority.bundle(now)?, now + create.life.as_secs(), now)?;
    print::err(&format!("for {id}, good once within {} s\n", create.life.as_secs()));
    print::out(&format!("{}\n", token.text()))?;
    Ok(Exit::Ok)
}
