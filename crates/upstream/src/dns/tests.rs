//! The resolver against a small name server on loopback whose answers change.

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use rhumb_balance::{Algorithm, EndpointSet};
use rhumb_testkit::nameserver::{NameServer, Reply};

use super::*;

/// Quick to ask again.
fn dns(server: &NameServer) -> Dns {
    let settings = Settings {
        shortest_ttl: Duration::from_millis(10),
        longest_ttl: Duration::from_millis(40),
        timeout: Duration::from_millis(150),
        attempts: 1,
        first_retry: Duration::from_millis(10),
        longest_retry: Duration::from_millis(40),
    };
    Dns::new(&Nameservers::Servers(vec![server.address()]), settings, Instant::now()).unwrap()
}

fn cell() -> Arc<Endpoints> {
    Arc::new(Endpoints::new(EndpointSet::empty(Algorithm::LeastBusy)))
}

fn address(name: &str) -> Query {
    Query::Address { name: name.into(), port: 80 }
}

/// `address weight hostname`, sorted.
fn shown(cell: &Endpoints) -> Vec<String> {
    let set = cell.load();
    let show = |member: &rhumb_balance::set::Member| {
        let endpoint = member.endpoint();
        format!("{} {} {}", endpoint.address(), member.weight(), endpoint.hostname().unwrap())
    };
    set.members().iter().map(show).collect()
}

async fn until(watch: &Watch, is_reached: impl FnMut(&Status) -> bool) -> Status {
    let waited = tokio::time::timeout(Duration::from_secs(20), watch.wait_for(is_reached)).await;
    waited.unwrap_or_else(|_| panic!("never reached: {:?}", watch.status()))
}

#[tokio::test]
async fn addresses_are_published_and_followed() {
    let server = NameServer::start().await;
    server.addresses("orders.test", &[2, 1], 0);
    server.set(
        "orders.test",
        RecordType::AAAA,
        Reply::Records(vec![RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))], 60),
    );
    let (dns, cell) = (dns(&server), cell());
    let watch = dns.watch(Query::Address { name: "Orders.test.".into(), port: 8080 }, &cell);
    let status = until(&watch, Status::is_known).await;
    // Where the machine has no IPv6 at all, ::1 is left out.
    let has_v6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    let mut expected = vec!["127.0.0.1:8080 1 orders.test", "127.0.0.2:8080 1 orders.test"];
    expected.extend(has_v6.then_some("[::1]:8080 1 orders.test"));
    assert_eq!(shown(&cell), expected);
    assert_eq!((status.trouble, status.endpoints), (None, expected.len()));

    let kept = Arc::clone(cell.load().members()[1].endpoint());
    server.set("orders.test", RecordType::AAAA, Reply::Code(ResponseCode::NoError));
    server.addresses("orders.test", &[2, 3], 0);
    until(&watch, |_| shown(&cell) == ["127.0.0.2:8080 1 orders.test", "127.0.0.3:8080 1 orders.test"]).await;
    assert!(Arc::ptr_eq(cell.load().members()[0].endpoint(), &kept));

    // The same in another order is not a change.
    let generation = cell.generation();
    server.addresses("orders.test", &[3, 2], 0);
    let successes = watch.status().successes;
    until(&watch, |status| status.successes > successes + 2).await;
    assert_eq!(cell.generation(), generation);
}

#[tokio::test]
async fn the_ttl_says_when_to_ask_again_within_bounds() {
    let server = NameServer::start().await;
    server.addresses("a.test", &[1], 1000);
    let settings = Settings { longest_ttl: Duration::from_secs(500), ..Settings::default() };
    let origin = Instant::now();
    let dns = Dns::new(&Nameservers::Servers(vec![server.address()]), settings, origin).unwrap();
    for (ttl, shortest, longest) in [(0, 1, 2), (60, 60, 67), (3600, 500, 551)] {
        let name = format!("ttl-{ttl}.test");
        server.addresses(&name, &[1], ttl);
        let before = Instant::now();
        let status = until(&dns.watch(address(&name), &cell()), Status::is_known).await;
        let (next, resolved) = (status.next_at.unwrap(), status.resolved_at.unwrap());
        assert!(next >= before + Duration::from_secs(shortest), "{ttl}");
        assert!(next <= resolved + Duration::from_secs(longest), "{ttl}");
    }
}

#[tokio::test]
async fn what_was_resolved_last_stays_while_servers_fail() {
    for (reply, expected) in [
        (Reply::Code(ResponseCode::ServFail), "server_failure"),
        (Reply::Code(ResponseCode::Refused), "server_failure"),
        (Reply::Silence, "timeout"),
    ] {
        let server = NameServer::start().await;
        server.addresses("a.test", &[1, 2], 0);
        let (dns, cell) = (dns(&server), cell());
        let watch = dns.watch(address("a.test"), &cell);
        until(&watch, Status::is_known).await;
        server.set("a.test", RecordType::A, reply.clone());
        server.set("a.test", RecordType::AAAA, reply);
        let status = until(&watch, |status| status.failures_in_row > NEGATIVE_CONFIRMATIONS + 1).await;
        assert_eq!(status.trouble.unwrap().token(), expected);
        assert_eq!((status.endpoints, shown(&cell).len()), (2, 2));
        assert!(status.resolved_at.is_some());
        server.addresses("a.test", &[3], 0);
        server.set("a.test", RecordType::AAAA, Reply::Code(ResponseCode::NoError));
        let status = until(&watch, |status| status.trouble.is_none()).await;
        assert_eq!((status.failures_in_row, shown(&cell)), (0, vec!["127.0.0.3:80 1 a.test".to_owned()]));
    }
}

#[tokio::test]
async fn that_a_name_is_gone_is_believed_when_it_is_confirmed() {
    for (code, token) in [(ResponseCode::NXDomain, "nxdomain"), (ResponseCode::NoError, "nodata")] {
        let server = NameServer::start().await;
        server.addresses("a.test", &[1], 0);
        let (dns, cell) = (dns(&server), cell());
        let watch = dns.watch(address("a.test"), &cell);
        until(&watch, Status::is_known).await;
        server.set("a.test", RecordType::A, Reply::Code(code));
        server.set("a.test", RecordType::AAAA, Reply::Code(code));
        let first = until(&watch, |status| status.failures_in_row >= 1).await;
        assert!(first.failures_in_row > 1 || first.endpoints == 1, "kept at first: {first:?}");
        let status = until(&watch, |status| status.endpoints == 0).await;
        assert!(status.failures_in_row >= NEGATIVE_CONFIRMATIONS);
        assert_eq!((status.trouble.unwrap().token(), shown(&cell).len()), (token, 0));
        server.addresses("a.test", &[2], 0);
        until(&watch, |status| status.endpoints == 1).await;
    }
}

#[tokio::test]
async fn half_an_answer_keeps_the_other_half() {
    let server = NameServer::start().await;
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        // Without IPv6 there is no other half: its addresses are left out from the start.
        return;
    }
    server.addresses("a.test", &[1], 0);
    let v6 = RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1));
    server.set("a.test", RecordType::AAAA, Reply::Records(vec![v6], 0));
    let (dns, cell) = (dns(&server), cell());
    let watch = dns.watch(address("a.test"), &cell);
    until(&watch, |status| status.endpoints == 2).await;
    server.set("a.test", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    server.addresses("a.test", &[2], 0);
    until(&watch, |_| shown(&cell).contains(&"127.0.0.2:80 1 a.test".to_owned())).await;
    assert_eq!(shown(&cell), ["127.0.0.2:80 1 a.test", "[::1]:80 1 a.test"]);
}

#[tokio::test]
async fn services_give_ports_weights_and_the_lowest_priority() {
    let server = NameServer::start().await;
    let srv = |priority, weight, port, target: &str| {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
    };
    let name = "_http._tcp.shop.test";
    server.set(
        name,
        RecordType::SRV,
        Reply::Records(
            vec![srv(20, 1, 9, "far.test."), srv(10, 3, 8001, "A.test."), srv(10, 0, 8002, "b.test.")],
            0,
        ),
    );
    server.addresses("a.test", &[1], 0);
    server.addresses("b.test", &[2, 3], 0);
    server.addresses("far.test", &[9], 0);
    let (dns, cell) = (dns(&server), cell());
    let watch = dns.watch(Query::Service { name: name.into() }, &cell);
    until(&watch, Status::is_known).await;
    assert_eq!(
        shown(&cell),
        ["127.0.0.1:8001 300 a.test", "127.0.0.2:8002 1 b.test", "127.0.0.3:8002 1 b.test"]
    );

    // One target unknown for a while: its endpoints stay.
    server.set("b.test", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.addresses("a.test", &[4], 0);
    until(&watch, |_| shown(&cell).iter().any(|line| line.starts_with("127.0.0.4"))).await;
    assert_eq!(shown(&cell).len(), 3);

    // The whole priority is unknown, not gone: the next one does not take over.
    server.set("a.test", RecordType::A, Reply::Code(ResponseCode::ServFail));
    until(&watch, |status| status.failures_in_row > NEGATIVE_CONFIRMATIONS).await;
    assert_eq!(shown(&cell).len(), 3);

    // It is gone.
    for name in ["a.test", "b.test"] {
        server.set(name, RecordType::A, Reply::Code(ResponseCode::NXDomain));
        server.set(name, RecordType::AAAA, Reply::Code(ResponseCode::NXDomain));
    }
    until(&watch, |_| shown(&cell) == ["127.0.0.9:9 100 far.test"]).await;

    server.set(name, RecordType::SRV, Reply::Records(vec![srv(0, 0, 0, ".")], 0));
    let status = until(&watch, |status| status.endpoints == 0).await;
    assert_eq!(status.trouble, Some(Trouble::NoRecords));
}

#[tokio::test]
async fn aliases_are_followed() {
    let server = NameServer::start().await;
    let alias = RData::CNAME(CNAME(Name::from_ascii("real.test.").unwrap()));
    server.set("alias.test", RecordType::A, Reply::Records(vec![alias.clone()], 0));
    server.set("alias.test", RecordType::AAAA, Reply::Records(vec![alias], 0));
    server.addresses("real.test", &[7], 60);
    let (dns, cell) = (dns(&server), cell());
    let watch = dns.watch(address("alias.test"), &cell);
    until(&watch, Status::is_known).await;
    assert_eq!(shown(&cell), ["127.0.0.7:80 1 alias.test"]);
}

#[tokio::test]
async fn one_query_is_asked_once_for_all_who_watch_it_and_not_at_all_for_nobody() {
    let server = NameServer::start().await;
    server.addresses("a.test", &[1], 3600);
    let settings = Settings { timeout: Duration::from_secs(5), ..Settings::default() };
    let dns = Dns::new(&Nameservers::Servers(vec![server.address()]), settings, Instant::now()).unwrap();
    let cells = [cell(), cell(), cell()];
    let first = dns.watch(address("a.test"), &cells[0]);
    let second = dns.watch(address("a.test"), &cells[1]);
    until(&first, Status::is_known).await;
    until(&second, Status::is_known).await;
    let third = dns.watch(address("a.test"), &cells[2]);
    assert!(third.status().is_known(), "known at once");
    for cell in &cells {
        assert_eq!(shown(cell), ["127.0.0.1:80 1 a.test"]);
    }
    let count = || server.asked().iter().filter(|(name, _)| name == "a.test").count();
    assert_eq!(count(), 2, "A and AAAA");
    let again = dns.watch(address("a.test"), &cells[2]);
    assert_eq!(cells[2].generation(), 1, "a cell that has it is left alone");

    let weak = Arc::downgrade(&first.0);
    drop((first, second, third, again));
    assert!(weak.upgrade().is_none());
    let other = dns.watch(address("a.test"), &cells[0]);
    assert!(!other.status().is_known(), "asked anew");
}

#[tokio::test]
async fn a_name_that_never_was_leaves_the_cell_empty_and_says_why() {
    let server = NameServer::start().await;
    server.set("no.test", RecordType::A, Reply::Code(ResponseCode::NXDomain));
    server.set("no.test", RecordType::AAAA, Reply::Code(ResponseCode::NXDomain));
    let (dns, cell) = (dns(&server), cell());
    let status = until(&dns.watch(address("no.test"), &cell), Status::is_known).await;
    assert_eq!((status.trouble, status.endpoints, status.resolved_at), (Some(Trouble::NoSuchName), 0, None));
    assert!(shown(&cell).is_empty());
}

#[test]
fn the_systems_configuration_is_read() {
    Dns::new(&Nameservers::System, Settings::default(), Instant::now()).unwrap();
}
