//! Ports that no other test takes, in this process or in any other.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the kernel gives to outgoing connections, so that a client cannot take a reserved port.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Locked files, one per port, until this process ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A free TCP and UDP port on 127.0.0.1, reserved for this process: a lock on a file of the port's name keeps other
/// tests away between now and the moment when the program under test binds it.
pub fn free() -> u16 {
    let dir = std::env::temp_dir().join("rhumb-test-ports");
    std::fs::create_dir_all(&dir).expect("a directory for port locks");
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step) % u32::from(COUNT)) as u16;
        let Ok(file) = File::options().create(true).append(true).open(dir.join(port.to_string())) else {
            continue;
        };
        if file.try_lock().is_err() {
            continue;
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free {
            HELD.lock().expect("no test panics here").push(file);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let mut ports: Vec<u16> = (0..20).map(|_| free()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        assert!(ports.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()));
    }
}
