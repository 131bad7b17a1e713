//! `rhumb cert`: certificates of a mesh, looked at and changed.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_identity::{Authority, Inspected, Lifetimes, hand_out, inspect, roots_pem, system_clock};
use rhumb_tls::Peer;
use serde_json::json;

use super::store::StoreArgs;
use super::{Exit, Format};
use crate::print;

/// Where the certificate authority is where nobody says.
pub(super) const DIRECTORY: &str = "/var/lib/rhumb/authority";

/// Look at the certificates of a mesh, and change them
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb cert show /var/lib/rhumb/identity    what a proxy has, and when it ends
  rhumb cert authority                       the roots, and what happens next
  rhumb cert bundle > ca.crt                 the roots that members trust
  rhumb cert rotate                          a new root, without a failed handshake
  rhumb cert revoke spiffe://cluster.local/ns/shop/sa/orders
  rhumb cert issue --service-account orders --out /etc/rhumb/svid")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Tell what is in the files of a proxy, or in a file of certificates
    Show(Show),
    /// Tell which roots there are, and what happens next
    Authority(Status),
    /// Print the roots that members trust, in PEM
    Bundle(Bundle),
    /// Begin a rotation of the root; it ends by itself, after two lives of an SVID
    Rotate(Rotate),
    /// Void what an identity has been given until now, or one certificate
    Revoke(Revoke),
    /// Issue an SVID into files, for a proxy that has no control plane
    Issue(Issue),
}

#[derive(clap::Args, Debug)]
struct Show {
    /// Directory of a proxy's identity, or a file
    path: PathBuf,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(clap::Args, Debug)]
struct Place {
    /// Directory of the certificate authority
    #[arg(long, value_name = "DIR", env = "RHUMB_AUTHORITY", default_value = DIRECTORY)]
    authority: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

impl Place {
    fn attach(&self, now: u64) -> anyhow::Result<Authority> {
        Ok(Authority::attach_at(self.store.place(&self.authority, false)?, now)?)
    }
}

#[derive(clap::Args, Debug)]
struct Status {
    #[command(flatten)]
    place: Place,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(clap::Args, Debug)]
struct Bundle {
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
struct Rotate {
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
struct Revoke {
    /// Whose certificates: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT
    #[arg(required_unless_present = "serial")]
    id: Option<SpiffeId>,
    /// One certificate, by its serial number in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with = "id")]
    serial: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args, Debug)]
struct Issue {
    /// Namespace of the workload
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Service account of the workload
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: String,
    /// Directory for tls.crt, tls.key and ca.crt
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Trust domain, where the authority is made by this
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let now = system_clock()();
    match &args.what {
        What::Show(show) => print::out(&shown(&inspect(&show.path)?, show.format, now))?,
        What::Authority(status) => {
            let authority = status.place.attach(now)?;
            print::out(&told(&authority, status.format, now)?)?;
        }
        What::Bundle(bundle) => print::out(&roots_pem(&bundle.place.attach(now)?, now)?)?,
        What::Rotate(rotate) => {
            let authority = rotate.place.attach(now)?;
            authority.rotate_root(now)?;
            let next = authority.forecast().next_change;
            print::out(&format!("a new root is in the bundle; it signs from {} on\n", when(next)))?;
        }
        What::Revoke(revoke) => {
            let authority = revoke.place.attach(now)?;
            if let Some(serial) = &revoke.serial {
                authority.revoke_serial(&serial.to_ascii_lowercase(), now)?;
                print::out(&format!("certificate {serial} is void\n"))?;
            } else if let Some(id) = &revoke.id {
                anyhow::ensure!(
                    id.is_member_of(authority.trust_domain()),
                    "{id} is not of trust domain {}",
                    authority.trust_domain()
                );
                authority.revoke_identity(id, now)?;
                print::out(&format!("what {id} was given until now is void\n"))?;
            }
        }
        What::Issue(issue) => {
            let authority = opened(&issue.place, &issue.trust_domain, now)?;
            let id = authority.trust_domain().workload(&issue.namespace, &issue.service_account);
            let id = id.context("namespace or service account")?;
            let (files, issued) = hand_out(&authority, &id, &issue.out, now)?;
            print::out(&format!(
                "{id}\nuntil {}\n{}\n{}\n{}\n",
                when(issued.not_after_unix),
                files.certificate.display(),
                files.key.display(),
                files.bundle.display()
            ))?;
        }
    }
    Ok(Exit::Ok)
}

/// The authority of a place, made where there is none.
fn opened(place: &Place, domain: &TrustDomain, now: u64) -> anyhow::Result<Authority> {
    let place = place.store.place(&place.authority, true)?;
    match Authority::attach_at(place.clone(), now) {
        Err(rhumb_identity::Error::NoAuthority { .. }) => {
            Ok(Authority::open_at(place, domain, Lifetimes::default(), now)?)
        }
        attached => Ok(attached?),
    }
}

fn shown(inspected: &Inspected, format: Format, now: u64) -> String {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let name = |peer: &Peer| peer.spiffe_id().map_or_else(|| peer.subject.clone(), str::to_owned);
    let all = inspected.chain.iter().map(|peer| ("chain", peer));
    let all = all.chain(inspected.roots.iter().map(|peer| ("root", peer)));
    if format == Format::Json {
        let entry = |(what, peer): (&str, &Peer)| {
            json!({
                "what": what,
                "name": name(peer),
                "subject": peer.subject,
                "serial": peer.serial,
                "fingerprint": peer.fingerprint_hex(),
                "notBefore": peer.not_before_unix,
                "notAfter": peer.not_after_unix,
                "secondsLeft": peer.not_after_unix - now,
            })
        };
        return format!("{}\n", json!(all.map(entry).collect::<Vec<_>>()));
    }
    let row = |(what, peer): (&str, &Peer)| {
        let end = u64::try_from(peer.not_after_unix).unwrap_or(0);
        [what.to_owned(), name(peer), peer.serial.clone(), when(end), left(peer.not_after_unix - now)]
    };
    print::table(["WHAT", "NAME", "SERIAL", "ENDS", "LEFT"], &all.map(row).collect::<Vec<_>>())
}

fn told(authority: &Authority, format: Format, now: u64) -> anyhow::Result<String> {
    let (roots, forecast) = (authority.roots(now)?, authority.forecast());
    let signed = i64::try_from(now).unwrap_or(i64::MAX);
    if format == Format::Json {
        let roots: Vec<_> = roots
            .iter()
            .map(|root| {
                json!({
                    "subject": root.info.subject,
                    "phase": root.phase.as_str(),
                    "notBefore": root.info.not_before_unix,
                    "notAfter": root.info.not_after_unix,
                })
            })
            .collect();
        let next = (forecast.next_change != u64::MAX).then_some(forecast.next_change);
        return Ok(format!(
            "{}\n",
            json!({
                "trustDomain": authority.trust_domain().as_str(),
                "roots": roots,
                "intermediateNotAfter": forecast.intermediate_ends,
                "nextChange": next,
                "revoked": authority.revocations().len(),
            })
        ));
    }
    let rows: Vec<_> = roots
        .iter()
        .map(|root| {
            let end = u64::try_from(root.info.not_after_unix).unwrap_or(0);
            [
                root.phase.as_str().to_owned(),
                root.info.subject.clone(),
                when(end),
                left(root.info.not_after_unix - signed),
            ]
        })
        .collect();
    let mut text = format!("trust domain {}\n", authority.trust_domain());
    text.push_str(&print::table(["ROOT", "SUBJECT", "ENDS", "LEFT"], &rows));
    text.push_str(&format!("intermediate ends {}\n", when(forecast.intermediate_ends)));
    if forecast.next_change != u64::MAX {
        text.push_str(&format!("next change by itself {}\n", when(forecast.next_change)));
    }
    let revoked = authority.revocations().len();
    if revoked > 0 {
        text.push_str(&format!("{revoked} revocations are in force\n"));
    }
    Ok(text)
}

/// A time in UTC.
fn when(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // The civil calendar in eras of 400 years that begin in March, so that a leap day comes last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z", year + era * 400 + next)
}

/// How long that is, in its two largest units.
fn left(seconds: i64) -> String {
    if seconds < 0 {
        return "ended".to_owned();
    }
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(when(0), "1970-01-01T00:00:00Z");
        assert_eq!(when(951_825_600), "2000-02-29T12:00:00Z");
        assert_eq!(when(4_102_444_799), "2099-12-31T23:59:59Z");
        assert_eq!(left(-1), "ended");
        assert_eq!([left(5), left(300), left(90_000), left(400_000)], ["5s", "5m", "25h0m", "4d15h"]);
    }
}
