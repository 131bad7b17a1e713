//! Settings and limits of a connection. Each number has its name and its reason here.

use std::time::Duration;

/// Which side of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We answer requests.
    Server,
    /// We send requests.
    Client,
}

/// How a connection behaves. `Config::new` has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our side.
    pub role: Role,
    /// Streams open at once: announced to clients, kept to towards servers even if they allow more.
    /// Default: 100 as server, 256 as client.
    pub max_concurrent_streams: u32,
    /// Content of one stream that the peer may send before we have consumed it. Unit: bytes. Default: 256 KiB.
    pub initial_window: u32,
    /// The same for all streams together, at least 65 535 (RFC 9113 §6.9.2). Unit: bytes. Default: 1 MiB.
    pub connection_window: u32,
    /// Largest frame that we receive, 16 KiB to 16 MiB (RFC 9113 §4.2). Unit: bytes. Default: 16 KiB.
    pub max_frame_size: u32,
    /// Largest field section that we accept: names, values and 32 bytes per line (RFC 9113 §6.5.2). Beyond it a
    /// message is refused (431) and the connection goes on. Unit: bytes. Default: 64 KiB.
    pub max_header_list_size: u32,
    /// Most field lines of a section. Beyond it a message is refused (431). Default: 128.
    pub max_fields: u32,
    /// Longest `:path`. Beyond it a request is refused (414). Unit: bytes. Default: 16 KiB.
    pub max_path: u32,
    /// Dynamic table for what we receive (RFC 7541 §4). Unit: bytes. Default: 4096.
    pub header_table_size: u32,
    /// Dynamic table for what we send, if the peer allows it. Unit: bytes. Default: 4096.
    pub encoder_table_size: u32,
    /// As server: extended CONNECT is understood (RFC 8441 §3). Default: true.
    pub enable_connect_protocol: bool,
    /// Time that the peer has to acknowledge our SETTINGS (RFC 9113 §6.5.3). Default: 10 s.
    pub settings_timeout: Duration,
    /// What the peer may do to us.
    pub limits: Limits,
}

impl Config {
    /// The defaults of `role`.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            max_concurrent_streams: match role {
                Role::Server => SERVER_STREAMS,
                Role::Client => CLIENT_STREAMS,
            },
            initial_window: 256 << 10,
            connection_window: 1 << 20,
            max_frame_size: MIN_MAX_FRAME_SIZE,
            max_header_list_size: 64 << 10,
            max_fields: 128,
            max_path: 16 << 10,
            header_table_size: 4096,
            encoder_table_size: 4096,
            enable_connect_protocol: true,
            settings_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }

    /// Brings numbers that the protocol does not allow to the nearest that it does.
    pub(super) fn within_protocol(mut self) -> Self {
        self.max_concurrent_streams = self.max_concurrent_streams.clamp(1, MAX_STREAMS);
        self.initial_window = self.initial_window.min(MAX_WINDOW);
        self.connection_window = self.connection_window.clamp(INITIAL_WINDOW, MAX_WINDOW);
        self.max_frame_size = self.max_frame_size.clamp(MIN_MAX_FRAME_SIZE, MAX_MAX_FRAME_SIZE);
        self
    }
}

/// An amount that may come at once, and how fast it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Back per second.
    pub per_second: u32,
}

/// What a peer may do before the connection ends with ENHANCE_YOUR_CALM. [`Abuse`](super::Abuse) names each case.
///
/// Rates are not the whole measure: what normal traffic causes is given back by that traffic. A request gives back four
/// PRIORITY and two frames without effect (PRIORITY_UPDATE is unknown here), an answered one a reset. Content sent gives
/// back ten WINDOW_UPDATE, one more per KiB, and a PING; content received a PING and an empty DATA.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Streams reset by the peer, or by us through its fault, before their final response (as server), and streams
    /// refused because too many were open. Default: 400, then 40 per second and one per answered request.
    pub resets: Rate,
    /// PING. Default: 100, then 10 per second.
    pub pings: Rate,
    /// SETTINGS. Default: 20, then 1 per second.
    pub settings: Rate,
    /// DATA without content and without END_STREAM. Default: 100, then 10 per second.
    pub empty_frames: Rate,
    /// WINDOW_UPDATE. Default: 1000, then 100 per second.
    pub window_updates: Rate,
    /// PRIORITY. Default: 400, then 20 per second.
    pub priorities: Rate,
    /// Frames of unknown types, and RST_STREAM for streams that have ended. Default: 1000, then 100 per second.
    pub useless_frames: Rate,
    /// CONTINUATION frames of one field block. Default: 16.
    pub continuations: u32,
    /// Encoded bytes of one field block. Default: 128 KiB.
    pub field_block: u32,
    /// Output that waits for the peer to read, above which another reply to one of its control frames is an abuse.
    /// Unit: bytes. Default: 512 KiB.
    pub output: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let rate = |burst, per_second| Rate { burst, per_second };
        Self {
            resets: rate(400, 40),
            pings: rate(100, 10),
            settings: rate(20, 1),
            empty_frames: rate(100, 10),
            window_updates: rate(1000, 100),
            priorities: rate(400, 20),
            useless_frames: rate(1000, 100),
            continuations: 16,
            field_block: 128 << 10,
            output: 512 << 10,
        }
    }
}

/// Default of `max_concurrent_streams` as server: what RFC 9113 §6.5.2 recommends as the least.
const SERVER_STREAMS: u32 = 100;
/// Default of `max_concurrent_streams` as client.
const CLIENT_STREAMS: u32 = 256;
/// Most streams that any configuration may allow: places of streams fit 16 bits.
const MAX_STREAMS: u32 = 16_384;
/// Smallest and default SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2).
pub(super) const MIN_MAX_FRAME_SIZE: u32 = 1 << 14;
/// Largest SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2).
pub(super) const MAX_MAX_FRAME_SIZE: u32 = (1 << 24) - 1;
/// Windows before any setting or update (RFC 9113 §6.9.2).
pub(super) const INITIAL_WINDOW: u32 = 65_535;
/// Largest window (RFC 9113 §6.9.1).
pub(super) const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Decoded field sections may pass `max_header_list_size` so many times over before the connection ends: until then
/// the section is read to its end, and only its stream suffers.
pub(super) const SECTION_EXCESS: usize = 4;
