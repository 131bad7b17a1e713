//! Against a small name server on loopback, with files of the test.

use hickory_resolver::proto::op::ResponseCode;
use rhumb_testkit::nameserver::{NameServer, Reply};
use tempfile::TempDir;

use super::*;

const GONE: Reply = Reply::Code(ResponseCode::NXDomain);

/// A machine with a name server.
struct Machine {
    dir: TempDir,
    server: NameServer,
    longest: Duration,
}

impl Machine {
    /// `resolv_conf` is what stands there beside the server.
    async fn new(hosts: &str, resolv_conf: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Self { dir, server: NameServer::start().await, longest: LONGEST };
        fs::write(machine.dir.path().join("hosts"), hosts).unwrap();
        machine.configure(resolv_conf);
        machine
    }

    fn configure(&self, resolv_conf: &str) {
        let text = format!("nameserver {}\n{resolv_conf}\n", self.server.address().ip());
        fs::write(self.dir.path().join("resolv.conf"), text).unwrap();
    }

    /// The addresses of a host or why it has none.
    async fn find(&self, host: &str) -> Vec<String> {
        let [hosts, resolv_conf] = self.files();
        shown(self.sources(&hosts, &resolv_conf).addresses(host, 80).await)
    }

    fn find_blocking(&self, host: &str) -> Vec<String> {
        let [hosts, resolv_conf] = self.files();
        shown(self.sources(&hosts, &resolv_conf).addresses_blocking(host, 80))
    }

    fn files(&self) -> [String; 2] {
        ["hosts", "resolv.conf"].map(|name| self.dir.path().join(name).display().to_string())
    }

    fn sources<'a>(&self, hosts: &'a str, resolv_conf: &'a str) -> Sources<'a> {
        Sources { hosts, resolv_conf, port: self.server.address().port(), longest: self.longest }
    }

    /// Names in the order in which they were asked for first.
    fn asked(&self) -> Vec<String> {
        let mut names: Vec<_> = self.server.asked().into_iter().map(|(name, _)| name).collect();
        names.dedup();
        names
    }
}

fn shown(outcome: Result<Vec<SocketAddr>, Unresolved>) -> Vec<String> {
    match outcome {
        Ok(addresses) => addresses.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// What is only reached over IPv6 where the machine has it.
fn has_v6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

#[tokio::test]
async fn addresses_and_names_of_the_hosts_file_are_asked_of_nobody() {
    let machine = Machine::new("127.0.0.9 db db.example\n", "").await;
    for (host, expected) in [
        ("127.0.0.1", "127.0.0.1:80"),
        ("::1", "[::1]:80"),
        ("[::1]", "[::1]:80"),
        ("db", "127.0.0.9:80"),
        ("DB.example.", "127.0.0.9:80"),
    ] {
        assert_eq!(machine.find(host).await, [expected], "{host}");
    }
    assert_eq!(machine.asked(), [""; 0]);
}

#[tokio::test]
async fn localhost_is_this_machine_whatever_name_servers_say() {
    let machine = Machine::new("127.0.0.7 localhost\n", "search corp.example").await;
    machine.server.addresses("localhost", &[9], 60);
    assert_eq!(machine.find("localhost").await, ["127.0.0.7:80"]);
    for host in ["a.localhost", "b.LocalHost."] {
        let found = machine.find(host).await;
        assert!(
            found.contains(&"127.0.0.1:80".to_owned()) && found.contains(&"[::1]:80".to_owned()),
            "{found:?}"
        );
    }
    assert_eq!(machine.asked(), [""; 0]);
}

#[tokio::test]
async fn the_search_list_is_gone_through_as_far_as_need_be() {
    let machine = Machine::new("", "search a.example b.example\noptions ndots:2").await;
    machine.server.set_both("db.a.example", &GONE);
    machine.server.addresses("db.b.example", &[2], 60);
    machine.server.addresses("x.y.z", &[3], 60);
    assert_eq!(machine.find("db").await, ["127.0.0.2:80"]);
    // Enough dots, or one at the end: as it is.
    assert_eq!(machine.find("x.y.z").await, ["127.0.0.3:80"]);
    machine.server.set_both("db", &GONE);
    assert_eq!(machine.find("db.").await, ["db.: the name does not exist (NXDOMAIN)"]);
    assert_eq!(machine.asked(), ["db.a.example", "db.b.example", "x.y.z", "db"]);

    // Each time as the file says then.
    machine.configure("domain c.example");
    machine.server.addresses("db.c.example", &[4], 60);
    assert_eq!(machine.find("db").await, ["127.0.0.4:80"]);
}

#[tokio::test]
async fn both_families_are_found_and_one_is_enough() {
    let machine = Machine::new("", "").await;
    machine.server.addresses("db.example", &[3, 2], 60);
    machine.server.address_v6("db.example", Ipv6Addr::LOCALHOST, 60);
    let expected = match has_v6() {
        true => ["[::1]:80", "127.0.0.3:80", "127.0.0.2:80"],
        false => ["127.0.0.3:80", "127.0.0.2:80", "[::1]:80"],
    };
    assert_eq!(machine.find("db.example").await, expected);
    machine.server.set("db.example", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    assert_eq!(machine.find("db.example").await, ["127.0.0.3:80", "127.0.0.2:80"]);
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_host() {
    let machine = Machine::new("", "search a.example\noptions attempts:1").await;
    let failing = Reply::Code(ResponseCode::ServFail);
    for name in ["no.example", "no.example.a.example", "failing.example.a.example"] {
        machine.server.set_both(name, &GONE);
    }
    machine.server.set_both("failing.example", &failing);
    for (host, expected) in [
        ("no.example", "no.example: the name does not exist (NXDOMAIN)"),
        ("empty.example", "empty.example: the name has no addresses"),
        // That its other name does not exist says nothing about it.
        ("failing.example", "failing.example: the name server answered Server Failure"),
        ("", ": is neither a name nor an address"),
        ("a b", "a b: is neither a name nor an address"),
        ("::1::2", "::1::2: is neither a name nor an address"),
    ] {
        assert_eq!(machine.find(host).await, [expected]);
    }
    let long = format!("{}.example", "x".repeat(64));
    assert!(machine.find(&long).await[0].starts_with(&format!("{long}: ")));
}

#[tokio::test]
async fn a_long_answer_comes_over_tcp_and_is_cut_to_what_is_tried() {
    let machine = Machine::new("", "").await;
    let last: Vec<u8> = (1..=100).collect();
    machine.server.addresses("many.example", &last, 60);
    let expected: Vec<_> =
        last.iter().take(MOST_ADDRESSES).map(|last| format!("127.0.0.{last}:80")).collect();
    assert_eq!(machine.find("many.example").await, expected);
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let mut machine = Machine::new("", "options timeout:30").await;
    machine.longest = Duration::from_millis(50);
    machine.server.set_both("db.example", &Reply::Silence);
    assert_eq!(machine.find("db.example").await, ["db.example: no name server answered in time"]);
}

#[test]
fn a_thread_of_a_runtime_may_wait_too() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serving = runtime();
    let machine = serving.block_on(Machine::new("127.0.0.8 here\n", ""));
    machine.server.addresses("db.example", &[5], 60);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| serving.block_on(stopped));
        let machine = &machine;
        runtime().block_on(async move {
            assert_eq!(machine.find_blocking("here"), ["127.0.0.8:80"]);
            assert_eq!(machine.find_blocking("db.example"), ["127.0.0.5:80"]);
            assert_eq!(
                machine.find_blocking("no-name-at-all "),
                ["no-name-at-all : is neither a name nor an address"]
            );
            drop(stop);
        });
    });
}

#[test]
fn a_server_is_a_host_and_a_port() {
    assert_eq!(host_and_port("db.example:5432"), Ok(("db.example", 5432)));
    assert_eq!(host_and_port("[::1]:80"), Ok(("[::1]", 80)));
    for server in ["db.example", "db.example:", "db.example:http", "db.example:70000", ""] {
        let error = host_and_port(server).unwrap_err();
        assert_eq!(error.to_string(), format!("{server}: is not of the form HOST:PORT"));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
}
