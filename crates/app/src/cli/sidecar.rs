//! `rhumb sidecar`.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use rhumb_base::spiffe::TrustDomain;
use serde_json::{Value, json};

use super::Exit;
use crate::config::{ConfigArg, NotFound};
use crate::guest::GuestCommand;
use crate::logs::LogArgs;
use crate::print;
use crate::run::{Options, run as run_process};

/// Run an application with its sidecar
///
/// Starts a proxy of the mesh for one workload, and the application when the proxy is ready. Callers reach the application
/// through the proxy on port 15008; the application calls other services at addresses of its own machine (`--upstream`), or
/// as it always has, with `--capture` and `rhumb intercept`.
///
/// At SIGTERM callers are told first: then the application gets the signal, and what it still does is carried until it has
/// ended. Its exit code is the sidecar's. An application that ends by itself ends the sidecar. Other signals are the
/// application's.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb sidecar -c /etc/rhumb --service orders --port 9000 -- ./orders
  rhumb sidecar -c mesh/ --service orders --port 80=9000:http --upstream payments=127.0.0.1:7001 -- ./orders --port 9000
  rhumb sidecar -c mesh/ --service orders --port 5432:tcp --capture -- postgres
  rhumb sidecar -c mesh/ --upstream orders=127.0.0.1:7000 -- ./report      a job that only calls
  rhumb sidecar --control 10.0.0.5:15012 --join-token-file token --service orders --port 9000 -- ./orders")]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Service that the application serves
    #[arg(long, value_name = "SERVICE", requires = "port")]
    service: Option<String>,
    /// Port that the application listens on, with the service's own when it is another, and with what is spoken there
    /// (http, h2c, grpc, tcp, …) when that is not to be found out: 9000, 80=9000, 80=9000:http
    #[arg(long, value_name = "[PORT=]PORT[:PROTOCOL]", requires = "service")]
    port: Vec<Served>,
    /// Service that the application calls at an address of its own machine: payments=127.0.0.1:7001; with the service's
    /// port when it has several: payments:8080=127.0.0.1:7001
    #[arg(long, value_name = "SERVICE[:PORT]=ADDRESS")]
    upstream: Vec<Upstream>,
    /// Take the connections that `rhumb intercept` brings, and answer the questions for names
    #[arg(long)]
    capture: bool,
    /// Namespace of the workload
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// Name of the workload. Default: that of the service, else of the program
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// Service account of the workload: who it is to others
    #[arg(long, value_name = "NAME", default_value = "default")]
    service_account: String,
    /// Address that others reach the workload at. Default: that of the first interface
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Where connections of the mesh are taken. Default: port 15008 of every address
    #[arg(long, value_name = "ADDRESS")]
    tunnel: Option<SocketAddr>,
    /// Certificate of the workload with its chain, PEM
    #[arg(long, value_name = "FILE", requires_all = ["key", "bundle"], group = "proof")]
    certificate: Option<PathBuf>,
    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Roots that are trusted, PEM (`rhumb cert bundle` prints them)
    #[arg(long, value_name = "FILE", requires = "proof")]
    bundle: Option<PathBuf>,
    /// Control plane of the mesh, as HOST:PORT; several to fail over to. Documents and the certificate come from it
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "certificate")]
    control: Vec<String>,
    /// File with the join token for the first certificate
    #[arg(long, value_name = "FILE", requires = "control")]
    join_token_file: Option<PathBuf>,
    /// Instead of a join token, in a pod: file of the token of its Kubernetes service account, made for the audience that the
    /// control plane wants. Needs --bundle
    #[arg(
        long,
        value_name = "FILE",
        group = "proof",
        requires_all = ["control", "bundle"],
        conflicts_with = "join_token_file"
    )]
    service_account_token: Option<PathBuf>,
    /// Directory of key, certificate and the last documents
    #[arg(long, value_name = "PATH", requires = "control")]
    state: Option<PathBuf>,
    /// File with the token that opens the admin listener; written when it does not exist
    #[arg(long, value_name = "FILE", env = "RHUMB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Directory of named tokens and of the audit log. Default: that of the service's state (systemd), or that of the token
    #[arg(long, value_name = "DIR", env = "RHUMB_ADMIN_DIRECTORY")]
    admin_directory: Option<PathBuf>,
    #[command(flatten)]
    logs: LogArgs,
    /// The application and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A port that the application listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Served {
    service: u16,
    application: u16,
    protocol: Option<String>,
}

/// A service that is called at an address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Upstream {
    service: String,
    port: Option<u16>,
    listen: SocketAddr,
}

/// Text that is not what an option takes.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable(&'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unreadable {}

impl FromStr for Served {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        const WRONG: Unreadable = Unreadable("write a port, for example 9000, 80=9000 or 80=9000:http");
        let (ports, protocol) = match text.split_once(':') {
            Some((_, "")) => return Err(WRONG),
            Some((ports, protocol)) => (ports, Some(protocol.to_owned())),
            None => (text, None),
        };
        let (service, application) = ports.split_once('=').unwrap_or((ports, ports));
        match (port(service), port(application)) {
            (Some(service), Some(application)) => Ok(Self { service, application, protocol }),
            _ => Err(WRONG),
        }
    }
}

impl FromStr for Upstream {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        const WRONG: Unreadable = Unreadable(
            "write a service and where it is called, for example payments=127.0.0.1:7001 or payments:8080=127.0.0.1:7001",
        );
        let (name, listen) = text.split_once('=').ok_or(WRONG)?;
        let (service, number) = match name.split_once(':') {
            Some((service, number)) => (service, Some(port(number).ok_or(WRONG)?)),
            None => (name, None),
        };
        // A port alone is one of this machine.
        let listen = match port(listen) {
            Some(port) => (Ipv4Addr::LOCALHOST, port).into(),
            None => listen.parse().map_err(|_| WRONG)?,
        };
        if service.is_empty() {
            Err(WRONG)
        } else {
            Ok(Self { service: service.to_owned(), port: number, listen })
        }
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    if let Err(error) = args.logs.start() {
        print::err(&format!("rhumb: {error}\n"));
        return Ok(Exit::Usage);
    }
    let config = match args.config.path() {
        Ok(path) => path,
        // Everything comes from the control plane.
        Err(NotFound) if !args.control.is_empty() => {
            let state = args.state.clone();
            let usual = || crate::remote::directory_of(&args.namespace, &workload_name(&args));
            let directory = state.unwrap_or_else(usual).join("own");
            std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
            directory
        }
        Err(NotFound) => {
            print::err(
                "rhumb: a sidecar needs the documents of its mesh (Service, Workload, Mesh): name their directory with -c PATH\n",
            );
            return Ok(Exit::Usage);
        }
    };
    let made = document(&args, trust_domain(&args).as_ref()).to_string();
    let mut command = args.command.into_iter();
    let Some(program) = command.next() else { return Ok(Exit::Usage) };
    let options = Options {
        config,
        token_file: args.admin_token_file,
        admin_directory: args.admin_directory,
        pid_file: None,
        partial: false,
        origin: None,
        made: Some(made),
        guest: Some(GuestCommand { program, arguments: command.collect() }),
        embedded: None,
        member: None,
    };
    run_process(options, || ())
}

fn workload_name(args: &Args) -> String {
    args.workload.clone().or_else(|| args.service.clone()).unwrap_or_else(|| program_name(&args.command))
}

/// The trust domain of the mesh: that of the certificate it has, else that of its join token.
fn trust_domain(args: &Args) -> Option<TrustDomain> {
    if args.control.is_empty() {
        return None;
    }
    let usual = || crate::remote::directory_of(&args.namespace, &workload_name(args));
    let directory = args.state.clone().unwrap_or_else(usual);
    crate::remote::known_domain(&directory, args.join_token_file.as_deref())
}

/// The Sidecar that the arguments describe.
fn document(args: &Args, trust_domain: Option<&TrustDomain>) -> Value {
    let name = workload_name(args);
    let mut spec = json!({ "workload": { "name": name, "serviceAccount": args.service_account } });
    if let Some(address) = args.address {
        spec["workload"]["address"] = json!(address.to_string());
    }
    if let Some(service) = &args.service {
        let inbound = args.port.iter().map(|served| {
            let target = SocketAddr::from((Ipv4Addr::LOCALHOST, served.application)).to_string();
            let mut inbound = json!({ "service": service, "port": served.service, "target": target });
            if let Some(protocol) = &served.protocol {
                inbound["protocol"] = json!(protocol);
            }
            inbound
        });
        spec["inbound"] = inbound.collect();
    }
    if !args.upstream.is_empty() {
        let upstreams = args.upstream.iter().map(|upstream| {
            let mut called = json!({ "service": upstream.service, "listen": upstream.listen.to_string() });
            if let Some(port) = upstream.port {
                called["port"] = json!(port);
            }
            called
        });
        spec["upstreams"] = upstreams.collect();
    }
    if args.capture {
        spec["capture"] = json!({});
    }
    if let Some(tunnel) = args.tunnel {
        spec["tunnel"] = json!(tunnel.to_string());
    }
    if let (Some(certificate), Some(key), Some(bundle)) = (&args.certificate, &args.key, &args.bundle) {
        let file = |path: &PathBuf| format!("file:{}", path.display());
        spec["identity"] =
            json!({ "certificate": file(certificate), "key": file(key), "bundle": file(bundle) });
    }
    if !args.control.is_empty() {
        let mut control = json!({ "addresses": args.control });
        if let Some(token) = &args.join_token_file {
            control["token"] = json!(format!("file:{}", token.display()));
        }
        if let (Some(token), Some(bundle)) = (&args.service_account_token, &args.bundle) {
            control["serviceAccount"] = json!({ "token": token, "bundle": bundle });
        }
        if let Some(domain) = trust_domain {
            control["trustDomain"] = json!(domain.as_str());
        }
        if let Some(state) = &args.state {
            control["stateDirectory"] = json!(state.display().to_string());
        }
        spec["identity"] = json!({ "control": control });
    }
    json!({
        "apiVersion": "rhumb.dev/v1alpha1",
        "kind": "Sidecar",
        "metadata": { "name": name, "namespace": args.namespace },
        "spec": spec,
    })
}

/// A name for a workload that serves nothing: that of its program, as far as it can be one (RFC 1123 label).
fn program_name(command: &[OsString]) -> String {
    let path = PathBuf::from(command.first().cloned().unwrap_or_default());
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "job".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn made(words: &[&str]) -> Value {
        let line =
            Line::try_parse_from(std::iter::once("sidecar").chain(words.iter().copied())).ok().unwrap();
        document(&line.args, None)["spec"].clone()
    }

    #[test]
    fn the_command_line_becomes_a_document() {
        let spec = made(&[
            "--service",
            "orders",
            "--port",
            "80=9000:http",
            "--port",
            "7000",
            "--upstream",
            "payments.shop:8080=127.0.0.1:7001",
            "--upstream",
            "stock=7002",
            "--capture",
            "--",
            "./orders",
            "--port",
            "9000",
        ]);
        let expected = json!({
            "workload": { "name": "orders", "serviceAccount": "default" },
            "inbound": [
                { "service": "orders", "port": 80, "target": "127.0.0.1:9000", "protocol": "http" },
                { "service": "orders", "port": 7000, "target": "127.0.0.1:7000" },
            ],
            "upstreams": [
                { "service": "payments.shop", "listen": "127.0.0.1:7001", "port": 8080 },
                { "service": "stock", "listen": "127.0.0.1:7002" },
            ],
            "capture": {},
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn a_service_account_of_kubernetes_is_a_proof() {
        let proof = ["--service-account-token", "/run/token", "--bundle", "/etc/ca.crt"];
        let words = [&["--control", "10.0.0.5:15012"], &proof[..], &["--", "./orders"]].concat();
        let expected = json!({
            "addresses": ["10.0.0.5:15012"],
            "serviceAccount": { "token": "/run/token", "bundle": "/etc/ca.crt" },
        });
        assert_eq!(made(&words)["identity"]["control"], expected);
        for wrong in [
            &["--service-account-token", "t", "--bundle", "b", "--", "./orders"][..],
            &["--control", "a:1", "--service-account-token", "t", "--", "./orders"],
            &["--control", "a:1", "--bundle", "b", "--", "./orders"],
        ] {
            let words = std::iter::once("sidecar").chain(wrong.iter().copied());
            assert!(Line::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_job_that_serves_nothing_has_its_programs_name() {
        assert_eq!(made(&["--", "/opt/Night_Report.sh"])["workload"]["name"], "night-report-sh");
    }

    #[test]
    fn wrong_words_are_refused() {
        for word in ["0", "a", "80=", "=80", "80:", "70000"] {
            assert!(word.parse::<Served>().is_err(), "{word}");
        }
        for word in ["orders", "=127.0.0.1:1", "orders=", "orders:x=127.0.0.1:1", "orders=name:1"] {
            assert!(word.parse::<Upstream>().is_err(), "{word}");
        }
    }
}
