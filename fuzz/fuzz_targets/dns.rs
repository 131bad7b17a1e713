//! Questions for names as a workload's programs send them: any octets are refused, or answered with a message that can be read
//! again, is about the same question, and leads nowhere but to virtual addresses.
#![no_main]

use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::RData;
use libfuzzer_sys::fuzz_target;
use rhumb_base::outside::{Destinations, OutsideNames};
use rhumb_base::virtual_address::{Allocation, is_virtual};
use rhumb_dns::answer::{Reply, answer};
use rhumb_dns::{Addresses, Names, Outside};

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let address = Allocation::default().assign("default/orders").expect("there is room");
    let mut names = Names::default();
    for name in ["orders", "orders.default", "orders.default.svc", "orders.default.svc.cluster.local"] {
        names.insert(name, Addresses { v4: Some(address.v4()), v6: Some(address.v6()) });
    }
    names.own_zone("svc.cluster.local");
    names.stand_for(Outside {
        names: Some(Destinations { names: ["*.org".into()].into(), ..Destinations::default() }),
        own: Default::default(),
        addresses: Arc::new(OutsideNames::default()),
    });
    names
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&flags, question)) = bytes.split_first() else { return };
    let Ok(query) = Message::from_vec(question) else { return };
    let Reply::Here(reply) = answer(&query, &NAMES, flags & 1 == 0, flags & 2 == 0) else { return };
    let told = Message::from_vec(&reply.to_vec().expect("it can be sent")).expect("it can be read");
    assert_eq!((told.metadata.id, told.metadata.message_type), (query.metadata.id, MessageType::Response));
    assert_eq!(told.queries, query.queries);
    for record in &told.answers {
        match &record.data {
            RData::A(address) => assert!(is_virtual(address.0.into()), "{record}"),
            RData::AAAA(address) => assert!(is_virtual(address.0.into()), "{record}"),
            RData::PTR(name) => assert!(name.0.to_ascii().starts_with("orders"), "{record}"),
            other => panic!("{other}"),
        }
    }
});
