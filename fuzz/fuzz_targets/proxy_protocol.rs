//! A PROXY protocol header is read the same however it is cut, never reaches behind its end, and what it says can be
//! written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_codec::proxy_protocol::{Header, MAX_V2, Version, parse, write};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    let end = match whole {
        Ok(Some((len, _))) => {
            assert!(len <= data.len() && len <= MAX_V2);
            assert_eq!(parse(&data[..len]), whole, "what follows does not matter");
            len
        }
        _ => data.len(),
    };
    for cut in 0..end {
        match parse(&data[..cut]) {
            // What is not refused yet may be refused with more; it is never complete too early.
            Ok(None) => {}
            Ok(Some(_)) => panic!("complete after {cut} of {end} bytes"),
            // Once refused, always refused.
            Err(_) => assert!(whole.is_err(), "refused after {cut} of {end} bytes"),
        }
    }
    if let Ok(Some((_, Header::Tcp { source, destination }))) = whole {
        for version in [Version::V1, Version::V2] {
            let mut written = Vec::new();
            write(version, Some((source, destination)), &mut written);
            let Ok(Some((len, Header::Tcp { source: from, destination: to }))) = parse(&written) else {
                panic!("{written:?}")
            };
            assert_eq!(len, written.len());
            assert_eq!((from.ip().to_canonical(), from.port()), (source.ip().to_canonical(), source.port()));
            assert_eq!((to.ip().to_canonical(), to.port()), (destination.ip().to_canonical(), destination.port()));
        }
    }
});
