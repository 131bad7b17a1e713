//! A ClientHello is found the same however its bytes arrive and however its message is spread over records, and the name
//! in it is one that can be looked up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_tls::{Peek, peek_client_hello};

fuzz_target!(|data: &[u8]| {
    let whole = peek_client_hello(data);
    for cut in 0..data.len() {
        match peek_client_hello(&data[..cut]) {
            Peek::NeedMore => {}
            // Nothing may follow a ClientHello in its record, but more bytes may follow the record.
            early => assert_eq!(early, whole, "after {cut} of {} bytes", data.len()),
        }
    }
    let Peek::Hello(hello) = &whole else { return };
    if let Some(name) = &hello.server_name {
        assert!(!name.is_empty() && name.len() <= 253 && !name.ends_with('.'));
        assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
    }
    for protocol in hello.alpn() {
        assert!(!protocol.is_empty() && hello.offers(protocol));
    }
    // The same message in records of one byte, where the first record has all of it and it is short enough for that.
    let first = usize::from(u16::from_be_bytes([data[3], data[4]]));
    if let Some(message) = data.get(5..5 + first)
        && message.len() <= 32
        && let [_, high, middle, low, body @ ..] = message
        && u32::from_be_bytes([0, *high, *middle, *low]) as usize == body.len()
    {
        let spread: Vec<u8> = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        assert_eq!(peek_client_hello(&spread), whole);
    }
});
