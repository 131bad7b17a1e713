//! PostgreSQL behind a TCP route: it speaks before TLS, so its TLS passes through what is a TCP route (SSLRequest).

use super::flow::records;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Finished, Program, Rhumb, finish};
use rhumb_testkit::wait;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The directory of PostgreSQL's programs: Debian keeps them off the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.expect("PostgreSQL: run `cargo xtask test` once, it installs the peers")
}

/// As somebody who is not root, which PostgreSQL refuses to be.
fn command(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// The files of a server with TLS, owned by its user.
pub(crate) struct Cluster {
    dir: TempDir,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        // Its owner must be able to reach it.
        let dir = tempfile::Builder::new().prefix("rhumb-pg").tempdir().expect("a directory");
        let data = dir.path().join("data");
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg("postgres").arg(dir.path());
            assert_eq!(finish(chown).code, Some(0));
        }
        let mut initdb = command(&programs().join("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "-D"]).arg(&data);
        let made = finish(initdb);
        assert_eq!(made.code, Some(0), "{}", made.output);
        let ca = Authority::new("test");
        let (cert, key) = ca.server(&["db.test"]).write(&data, "server");
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).expect("a file");
        for file in [&cert, &key] {
            let mut own = Command::new("chown");
            own.arg("--reference").arg(&data).arg(file);
            assert_eq!(finish(own).code, Some(0));
        }
        let mut mode = Command::new("chmod");
        mode.arg("600").arg(&key);
        assert_eq!(finish(mode).code, Some(0));
        Self { dir }
    }

    /// The server, on 127.0.0.1.
    pub(crate) fn server(&self, port: u16) -> Command {
        let data = self.dir.path().join("data");
        let (cert, key) = (data.join("server.crt"), data.join("server.key"));
        let mut server = command(&programs().join("postgres"));
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "ssl=on", "-k", ""]);
        server.arg("-c").arg(format!("ssl_cert_file={}", cert.display()));
        server.arg("-c").arg(format!("ssl_key_file={}", key.display()));
        server
    }
}

struct Postgres {
    _program: Program,
    cluster: Cluster,
    port: u16,
}

impl Postgres {
    fn start() -> Self {
        let (cluster, port) = (Cluster::new(), port::free());
        let server = cluster.server(port);
        let log = cluster.dir.path().join("postgres.log");
        let mut program = Program::start(server, &log);
        wait::until("PostgreSQL answers", || {
            assert!(program.ended().is_none(), "PostgreSQL ended: {}", program.log());
            (psql(port, "", "select 1").code == Some(0)).then_some(())
        });
        Self { _program: program, cluster, port }
    }
}

fn psql(port: u16, more: &str, statement: &str) -> Finished {
    let mut command = Command::new("psql");
    let target =
        format!("host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=20 {more}");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, &target]);
    finish(command)
}

#[test]
fn postgres_is_served_plain_and_with_tls_of_its_own() {
    let postgres = Postgres::start();
    let port = port::free();
    let config = Config::new()
        .listener("db", port, "protocol: TCP")
        .backend("postgres", &format!("endpoints: ['127.0.0.1:{}']", postgres.port))
        .route("on: db, to: postgres");
    let rhumb = Rhumb::start(&config);
    let run = |more: &str, statement: &str| {
        let finished = psql(port, more, statement);
        assert_eq!(finished.code, Some(0), "{}", finished.output);
        finished.output
    };
    assert_eq!(run("sslmode=disable", "select 6 * 7").trim(), "42");
    let ca = postgres.cluster.dir.path().join("ca.crt");
    let verified =
        format!("sslmode=verify-full sslrootcert={} host=db.test hostaddr=127.0.0.1", ca.display());
    assert_eq!(run(&verified, "select ssl from pg_stat_ssl where pid = pg_backend_pid()").trim(), "t");
    assert_eq!(run("sslmode=require", "select 1").trim(), "1");
    // Much in one answer.
    let long = run("sslmode=disable", "select repeat('x', 8000000)");
    assert_eq!(long.trim().len(), 8_000_000);
    // Either side says goodbye in TLS and closes without reading that of the other, which makes it a reset.
    let ends = ["closed", "backend_reset", "client_reset"].map(Value::from);
    assert!(records(&rhumb).iter().all(|record| ends.contains(&record["end"])), "{:?}", records(&rhumb));
    // A query that is under way survives a reload.
    let sleeping = std::thread::spawn(move || psql(port, "sslmode=disable", "select pg_sleep(2), 'awake'"));
    wait::until("the query runs", || {
        let running = psql(
            postgres.port,
            "",
            "select count(*) from pg_stat_activity where query like '%pg_sleep(2)%' and pid <> pg_backend_pid()",
        );
        (running.output.trim() == "1").then_some(())
    });
    rhumb.write(&config.top("workers: 2"));
    rhumb.reload();
    assert_eq!(sleeping.join().expect("its end").output.trim(), "|awake");
}
