//! What the load and the backend of the L4 scenarios say to each other.

/// Bytes of a message and of its echo.
pub const MESSAGE: usize = 64;

/// The first byte of a TLS handshake record (RFC 8446 §5.1).
pub const CLIENT_HELLO: u8 = 22;

/// A small message that is sent back.
pub fn echo() -> Vec<u8> {
    let mut message = vec![b'x'; MESSAGE];
    message[0] = b'e';
    message
}

/// A message that asks for so many bytes.
pub fn bulk(length: u64) -> Vec<u8> {
    let mut message = vec![0; MESSAGE];
    message[0] = b'b';
    message[1..9].copy_from_slice(&length.to_be_bytes());
    message
}

/// A ClientHello of TLS 1.3 for a server name, with the extensions that make up the size of a usual one.
pub fn client_hello(name: &str) -> Vec<u8> {
    let prefixed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], &prefixed(data)].concat();
    let server_name = prefixed(&[&[0][..], &prefixed(name.as_bytes())].concat());
    let key_share = prefixed(&[&[0, 0x1d][..], &prefixed(&[7; 32])].concat());
    let extensions = [
        extension(0, &server_name),
        extension(43, &[2, 3, 4]),
        extension(10, &prefixed(&[0, 0x1d])),
        extension(13, &prefixed(&[4, 3, 8, 4, 4, 1])),
        extension(51, &key_share),
        extension(16, &prefixed(b"\x08http/1.1")),
        extension(21, &[0; 256]),
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[32],
        &[5; 32],
        &prefixed(&[0x13, 1, 0x13, 2]),
        &[1, 0],
        &prefixed(&extensions),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[CLIENT_HELLO, 3, 1][..], &prefixed(&message)].concat()
}
