//! What is answered from the table; everything else is for the name servers.

use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rhumb_base::virtual_address::VirtualAddress;

use crate::names::{Addresses, Names};

/// How long an answer holds. Virtual addresses do not change, but names come and go. **Unit**: seconds.
const TTL: u32 = 30;

/// How long it holds that there is nothing. **Unit**: seconds.
const NEGATIVE_TTL: u32 = 5;

/// What becomes of a question.
#[derive(Debug)]
pub enum Reply {
    /// This is the answer.
    Here(Box<Message>),
    /// The name servers know.
    Elsewhere,
    /// It may be a service that is not in the table.
    Perhaps(Box<str>),
}

/// Looks a question up. `is_complete` tells whether there is nobody who knows more names. `is_v6` tells whether connections
/// over IPv6 can be made from here at all: where they cannot, an address that cannot be used only costs programs time.
pub fn answer(query: &Message, names: &Names, is_v6: bool, is_complete: bool) -> Reply {
    if query.metadata.message_type != MessageType::Query {
        return here(query, ResponseCode::FormErr, Vec::new());
    }
    if query.metadata.op_code != OpCode::Query {
        return here(query, ResponseCode::NotImp, Vec::new());
    }
    let [question] = query.queries.as_slice() else {
        return here(query, ResponseCode::FormErr, Vec::new());
    };
    if question.query_class() != DNSClass::IN {
        return Reply::Elsewhere;
    }
    let name = question.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    if let Some(addresses) = names.find(name) {
        return here(query, ResponseCode::NoError, records(question, data(question, addresses, is_v6)));
    }
    if let Some(address) = virtual_pointer(question) {
        return match names.name_of(address).and_then(|name| Name::from_ascii(format!("{name}.")).ok()) {
            Some(found) => {
                here(query, ResponseCode::NoError, records(question, vec![RData::PTR(PTR(found))]))
            }
            None => here(query, ResponseCode::NXDomain, Vec::new()),
        };
    }
    if !is_complete && names.may_be_service(name) {
        return Reply::Perhaps(name.into());
    }
    if names.is_own(name) {
        return here(query, ResponseCode::NXDomain, Vec::new());
    }
    match names.outside() {
        Some(outside) if has_addresses(question.query_type()) && outside.takes(name) => {
            match outside.addresses.assign(name, Instant::now()) {
                Some((v4, v6)) => {
                    let addresses = Addresses { v4: Some(v4), v6: Some(v6) };
                    here(query, ResponseCode::NoError, records(question, data(question, addresses, is_v6)))
                }
                // Its own addresses would lead past the proxy that it is to be reached through.
                None => here(query, ResponseCode::ServFail, Vec::new()),
            }
        }
        _ => Reply::Elsewhere,
    }
}

/// True for types whose records say where to connect to.
fn has_addresses(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA | RecordType::ANY | RecordType::HTTPS | RecordType::SVCB)
}

/// What addresses answer to a question.
fn data(question: &Query, addresses: Addresses, is_v6: bool) -> Vec<RData> {
    let v4 = addresses.v4.map(|address| RData::A(A(address)));
    let v6 = addresses.v6.filter(|_| is_v6).map(|address| RData::AAAA(AAAA(address)));
    match question.query_type() {
        RecordType::A => v4.into_iter().collect(),
        RecordType::AAAA => v6.into_iter().collect(),
        RecordType::ANY => v4.into_iter().chain(v6).collect(),
        // HTTPS, SVCB, MX, TXT and whatever else: the name exists and has none (RFC 2308 §2.2).
        _ => Vec::new(),
    }
}

/// An answer without anything in it.
pub(crate) fn refuse(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        // RFC 6891 §6.1.1: an OPT record answers one, and none comes unasked.
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        message.set_edns(edns);
    }
    message
}

/// Largest datagram that is taken: what fits an Ethernet frame in both families (DNS flag day 2020).
const MAX_PAYLOAD: u16 = 1232;

fn here(query: &Message, code: ResponseCode, answers: Vec<Record>) -> Reply {
    let mut message = refuse(query, code);
    let is_negative = answers.is_empty() && matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
    if let (true, Some(question)) = (is_negative, query.queries.first()) {
        // RFC 2308 §5: without an SOA record nobody may keep that there is nothing, and asks again at once.
        message.add_authority(soa(question.name().clone()));
    }
    message.metadata.authoritative = true;
    message.add_answers(answers);
    Reply::Here(Box::new(message))
}

fn records(question: &Query, data: Vec<RData>) -> Vec<Record> {
    data.into_iter().map(|data| Record::from_rdata(question.name().clone(), TTL, data)).collect()
}

fn soa(zone: Name) -> Record {
    // Timers of secondaries; there are none.
    let data = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86_400, NEGATIVE_TTL);
    Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(data))
}

/// The virtual address that a question of type PTR is about.
fn virtual_pointer(question: &Query) -> Option<IpAddr> {
    if question.query_type() != RecordType::PTR {
        return None;
    }
    match question.name().parse_arpa_name().ok()?.addr() {
        IpAddr::V4(address) => VirtualAddress::from_v4(address).map(|_| address.into()),
        IpAddr::V6(address) => {
            let last = address.segments().last().copied().unwrap_or_default();
            let [high, low] = last.to_be_bytes();
            let twin = VirtualAddress::from_v4(std::net::Ipv4Addr::new(240, 240, high, low))?;
            (twin.v6() == address).then_some(address.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Outside;
    use rhumb_base::outside::{Destinations, OutsideNames};
    use rhumb_base::virtual_address::Allocation;
    use std::sync::Arc;

    fn names() -> (Names, VirtualAddress) {
        let address = Allocation::default().assign("default/orders").unwrap();
        let mut names = Names::default();
        for name in ["orders.default.svc.cluster.local", "orders", "Orders.Default."] {
            names.insert(name, Addresses { v4: Some(address.v4()), v6: Some(address.v6()) });
        }
        names.own_zone("svc.cluster.local");
        (names, address)
    }

    fn ask(names: &Names, name: &str, kind: RecordType, is_v6: bool) -> Option<Message> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let asked = Message::from_vec(&query.to_vec().unwrap()).unwrap();
        match answer(&asked, names, is_v6, true) {
            Reply::Here(message) => Some(Message::from_vec(&message.to_vec().unwrap()).unwrap()),
            Reply::Elsewhere | Reply::Perhaps(_) => None,
        }
    }

    #[test]
    fn mesh_names_have_their_virtual_address_whatever_their_case() {
        let (names, address) = names();
        for name in ["orders.", "ORDERS.default.", "orders.default.svc.cluster.local."] {
            let found = ask(&names, name, RecordType::A, true).unwrap();
            assert_eq!(found.answers[0].data, RData::A(A(address.v4())), "{name}");
            // A resolver that mixes cases wants to see its own again.
            assert_eq!(found.answers[0].name.to_ascii(), name);
        }
        let found = ask(&names, "orders.", RecordType::AAAA, true).unwrap();
        assert_eq!(found.answers[0].data, RData::AAAA(AAAA(address.v6())));
    }

    #[test]
    fn what_a_mesh_name_lacks_is_answered_with_nothing() {
        let (names, _) = names();
        for (kind, is_v6) in [(RecordType::AAAA, false), (RecordType::HTTPS, true), (RecordType::MX, true)] {
            let found = ask(&names, "orders.", kind, is_v6).unwrap();
            assert_eq!(found.metadata.response_code, ResponseCode::NoError);
            assert!(found.answers.is_empty(), "{kind}");
            assert_eq!(found.authorities[0].record_type(), RecordType::SOA);
        }
    }

    #[test]
    fn names_that_go_through_another_proxy_have_an_address_that_stands_for_them() {
        let (mut names, _) = names();
        let given = Arc::new(OutsideNames::default());
        let listed = Destinations {
            names: ["api.example.com".into(), "*.example.org".into()].into(),
            ..Default::default()
        };
        let own = ["own.example.org".into()].into();
        names.stand_for(Outside { names: Some(listed), own, addresses: Arc::clone(&given) });
        for name in ["API.example.com.", "a.b.example.org."] {
            let found = ask(&names, name, RecordType::A, true).unwrap();
            let RData::A(A(address)) = found.answers[0].data else { panic!("{found}") };
            let meant = name.trim_end_matches('.').to_ascii_lowercase();
            assert_eq!(given.name(address.into()).as_deref(), Some(&*meant));
            assert!(ask(&names, name, RecordType::AAAA, false).unwrap().answers.is_empty());
            // Hints of addresses would lead past it (RFC 9460 §7.3).
            assert!(ask(&names, name, RecordType::HTTPS, true).unwrap().answers.is_empty());
            assert!(ask(&names, name, RecordType::MX, true).is_none());
        }
        for name in ["www.example.com.", "own.example.org.", "example.org.", "localhost."] {
            assert!(ask(&names, name, RecordType::A, true).is_none(), "{name}");
        }
    }

    #[test]
    fn unknown_names_of_the_mesh_do_not_exist_and_others_are_known_elsewhere() {
        let (names, _) = names();
        let found = ask(&names, "gone.default.svc.cluster.local.", RecordType::A, true).unwrap();
        assert_eq!(found.metadata.response_code, ResponseCode::NXDomain);
        for name in ["example.com.", "orders.example.com.", "svc.cluster.local.example."] {
            assert!(ask(&names, name, RecordType::A, true).is_none(), "{name}");
        }
    }

    #[test]
    fn virtual_addresses_have_names() {
        let (names, address) = names();
        let [_, _, high, low] = address.v4().octets();
        let found =
            ask(&names, &format!("{low}.{high}.240.240.in-addr.arpa."), RecordType::PTR, true).unwrap();
        assert_eq!(found.answers[0].data.to_string(), "orders.default.svc.cluster.local.");
        assert!(ask(&names, "1.0.0.10.in-addr.arpa.", RecordType::PTR, true).is_none());
    }

    #[test]
    fn only_questions_are_answered() {
        let (names, _) = names();
        let codes = [(MessageType::Response, OpCode::Query), (MessageType::Query, OpCode::Update)].map(
            |(kind, code)| {
                let mut message = Message::new(7, kind, code);
                message.add_query(Query::query(Name::from_ascii("orders.").unwrap(), RecordType::A));
                match answer(&message, &names, true, true) {
                    Reply::Here(message) => message.metadata.response_code,
                    Reply::Elsewhere | Reply::Perhaps(_) => ResponseCode::NoError,
                }
            },
        );
        assert_eq!(codes, [ResponseCode::FormErr, ResponseCode::NotImp]);
    }
}
