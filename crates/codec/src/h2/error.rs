//! What can go wrong: on a connection, on a stream, in one message.

use super::hpack::HpackError;
use rhumb_base::failure::Cause;
use std::fmt;

/// An error code of RST_STREAM and GOAWAY (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

#[allow(missing_docs)] // each constant is its code
impl ErrorCode {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);
}

impl ErrorCode {
    /// The code's name; `None` for codes that RFC 9113 does not know. They mean INTERNAL_ERROR.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the connection cannot go on. GOAWAY with [`ConnectionError::code`] is in the output already: write it, then
/// close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The connection does not begin with the preface (RFC 9113 §3.4).
    #[error("connection does not begin with the HTTP/2 preface")]
    BadPreface,
    /// The first frame is not SETTINGS (RFC 9113 §3.4).
    #[error("first frame is not SETTINGS")]
    SettingsExpected,
    /// A frame is longer than our SETTINGS_MAX_FRAME_SIZE (RFC 9113 §4.2).
    #[error("frame is longer than allowed")]
    FrameTooLarge,
    /// A frame of fixed length has another one (RFC 9113 §6).
    #[error("frame has the wrong length for its type")]
    FrameSize,
    /// A frame that needs a stream has none, or the other way round, or the stream is of the wrong kind.
    #[error("frame is on a stream that it may not be on")]
    StreamId,
    /// A frame on a stream that was never opened (RFC 9113 §5.1).
    #[error("frame is on an idle stream")]
    IdleStream,
    /// A frame on a stream that has ended (RFC 9113 §5.1).
    #[error("frame is on a closed stream")]
    ClosedStream,
    /// A frame between HEADERS and the end of its field block (RFC 9113 §4.3).
    #[error("frame interrupts a field block")]
    InterruptedBlock,
    /// CONTINUATION without a field block to continue (RFC 9113 §6.10).
    #[error("CONTINUATION continues nothing")]
    UnexpectedContinuation,
    /// Padding as long as the frame or longer (RFC 9113 §6.1).
    #[error("padding is longer than its frame")]
    BadPadding,
    /// A stream depends on itself (RFC 7540 §5.3.1).
    #[error("stream depends on itself")]
    SelfDependency,
    /// Server push, which we never allow (RFC 9113 §8.4).
    #[error("PUSH_PROMISE without permission")]
    PushPromise,
    /// WINDOW_UPDATE of the connection by nothing (RFC 9113 §6.9).
    #[error("WINDOW_UPDATE by zero")]
    ZeroIncrement,
    /// A window grew beyond 2³¹−1 (RFC 9113 §6.9.1).
    #[error("flow-control window is too large")]
    WindowOverflow,
    /// More content than the connection's window (RFC 9113 §6.9.1).
    #[error("content exceeds the connection's flow-control window")]
    FlowControl,
    /// A setting with a value that it cannot have (RFC 9113 §6.5.2).
    #[error("setting has an invalid value")]
    InvalidSetting,
    /// SETTINGS_INITIAL_WINDOW_SIZE above 2³¹−1 (RFC 9113 §6.5.2).
    #[error("initial window size is too large")]
    InvalidInitialWindow,
    /// Our SETTINGS were not acknowledged in time (RFC 9113 §6.5.3).
    #[error("SETTINGS are not acknowledged in time")]
    SettingsTimeout,
    /// A field block that cannot be decoded (RFC 9113 §4.3).
    #[error(transparent)]
    Compression(#[from] HpackError),
    /// The peer makes more work than its requests are worth.
    #[error("too many {0}")]
    Abuse(Abuse),
}

impl ConnectionError {
    /// The code that GOAWAY carries.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::FrameTooLarge | Self::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
            Self::ClosedStream => ErrorCode::STREAM_CLOSED,
            Self::WindowOverflow | Self::FlowControl | Self::InvalidInitialWindow => {
                ErrorCode::FLOW_CONTROL_ERROR
            }
            Self::SettingsTimeout => ErrorCode::SETTINGS_TIMEOUT,
            Self::Compression(_) => ErrorCode::COMPRESSION_ERROR,
            Self::Abuse(_) => ErrorCode::ENHANCE_YOUR_CALM,
            Self::BadPreface
            | Self::SettingsExpected
            | Self::StreamId
            | Self::IdleStream
            | Self::InterruptedBlock
            | Self::UnexpectedContinuation
            | Self::BadPadding
            | Self::SelfDependency
            | Self::PushPromise
            | Self::ZeroIncrement
            | Self::InvalidSetting => ErrorCode::PROTOCOL_ERROR,
        }
    }
}

macro_rules! abuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What a peer did too much of (RFC 9113 §10.5). Each has a limit in [`Limits`](super::Limits).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Abuse { $($(#[$doc])* $name,)* }

        impl Abuse {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A stable name for logs and metrics.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }

        impl fmt::Display for Abuse {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

abuses! {
    /// Streams that the peer reset, or made us reset, before their response (CVE-2023-44487, CVE-2025-8671).
    Resets = "resets", "streams reset before their response";
    /// PING (CVE-2019-9512).
    Pings = "pings", "PING frames";
    /// SETTINGS (CVE-2019-9515).
    Settings = "settings", "SETTINGS frames";
    /// DATA without content (CVE-2019-9518).
    EmptyFrames = "empty_frames", "DATA frames without content";
    /// WINDOW_UPDATE.
    WindowUpdates = "window_updates", "WINDOW_UPDATE frames";
    /// PRIORITY (CVE-2019-9513).
    Priorities = "priorities", "PRIORITY frames";
    /// Frames without effect: of unknown type, or RST_STREAM for streams that have ended.
    UselessFrames = "useless_frames", "frames without effect";
    /// CONTINUATION frames of one field block (CVE-2024-27316).
    Continuations = "continuations", "CONTINUATION frames in a field block";
    /// Encoded bytes of one field block.
    FieldBlock = "field_block", "bytes in a field block";
    /// Decoded bytes of one field section, far beyond the announced limit (CVE-2016-6581).
    FieldSection = "field_section", "bytes in a field section";
    /// Replies that wait in the output because the peer does not read (CVE-2019-9512, 9515).
    Output = "output", "replies that the peer does not read";
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a message is refused: it is malformed (RFC 9113 §8.1.1) or exceeds a limit. Concerns one stream only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Refusal { $($(#[$doc])* #[error($text)] $name,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A stable name for logs and metrics.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

refusals! {
    /// The field section exceeds SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 §6.5.2).
    TooLarge = "section_too_large", "the field section is larger than allowed";
    /// More field lines than the limit.
    TooManyFields = "too_many_fields", "there are more field lines than allowed";
    /// A name that is no token in lower case (RFC 9113 §8.2.1).
    NameInvalid = "field_name_invalid", "a field name is not a token in lower case";
    /// A control byte in a value, or white space around it (RFC 9113 §8.2.1).
    ValueInvalid = "field_value_invalid", "a field value has a control byte or surrounding white space";
    /// `content_length` and the like: a name that gateways to CGI turn into a framing field.
    FramingAlias = "framing_alias", "a field name differs from a framing field only by an underscore";
    /// A field of HTTP/1.1 connections (RFC 9113 §8.2.2).
    ConnectionField = "connection_field", "a field belongs to HTTP/1.1 connections";
    /// TE with anything but `trailers` (RFC 9113 §8.2.2).
    TeInvalid = "te_invalid", "TE has a value other than trailers";
    /// A pseudo-field after a field (RFC 9113 §8.3).
    PseudoAfterField = "pseudo_after_field", "a pseudo-field follows a field";
    /// A pseudo-field twice (RFC 9113 §8.3).
    PseudoRepeated = "pseudo_repeated", "a pseudo-field occurs more than once";
    /// A pseudo-field that is unknown or not for this kind of message (RFC 9113 §8.3).
    PseudoUnknown = "pseudo_unknown", "a pseudo-field is unknown or misplaced";
    /// A pseudo-field that is required is not there (RFC 9113 §8.3.1, §8.3.2).
    PseudoMissing = "pseudo_missing", "a pseudo-field is missing";
    /// `:method` is not a token.
    MethodInvalid = "method_invalid", "the method is not a token";
    /// `:method` is longer than [`MAX_METHOD_BYTES`](crate::h1::MAX_METHOD_BYTES).
    MethodTooLong = "method_too_long", "the method is longer than any known one";
    /// `:scheme` is neither http nor https.
    SchemeInvalid = "scheme_invalid", "the scheme is neither http nor https";
    /// `:path` is not an absolute path with an optional query, nor `*` for OPTIONS (RFC 9113 §8.3.1).
    PathInvalid = "path_invalid", "the path is not valid";
    /// `:path` exceeds the limit.
    PathTooLong = "path_too_long", "the path is longer than allowed";
    /// Neither `:authority` nor Host (RFC 9113 §8.3.1).
    AuthorityMissing = "authority_missing", "the authority is missing";
    /// The authority is not valid, or has user information (RFC 9113 §8.3.1).
    AuthorityInvalid = "authority_invalid", "the authority is not valid";
    /// Host more than once.
    HostRepeated = "host_repeated", "Host occurs more than once";
    /// Host names another authority than `:authority` (RFC 9113 §8.3.1).
    HostMismatch = "host_mismatch", "Host and :authority name different authorities";
    /// A CONNECT request with the wrong pseudo-fields (RFC 9113 §8.5), or an extended one that was not enabled
    /// (RFC 8441 §4).
    ConnectInvalid = "connect_invalid", "the CONNECT request is not valid";
    /// Content-Length more than once.
    ContentLengthRepeated = "content_length_repeated", "Content-Length occurs more than once";
    /// Content-Length is not a number below 2⁶³.
    ContentLengthInvalid = "content_length_invalid", "Content-Length is not a number below 2^63";
    /// More or less content than Content-Length says (RFC 9113 §8.1.1).
    ContentLengthMismatch = "content_length_mismatch", "the content is not as long as Content-Length says";
    /// Expect with anything but 100-continue (RFC 9110 §10.1.1).
    ExpectationUnknown = "expectation_unknown", "Expect asks for something unknown";
    /// `:status` is not a number from 100 to 599, or 101 (RFC 9113 §8.6).
    StatusInvalid = "status_invalid", "the status is not valid";
    /// An interim response that ends the stream (RFC 9113 §8.1).
    InterimEndsStream = "interim_ends_stream", "an interim response ends the stream";
    /// DATA before the head, or content in a response that has none.
    ContentUnexpected = "content_unexpected", "there is content where none may be";
    /// Trailers that do not end the stream (RFC 9113 §8.1).
    TrailersUnended = "trailers_unended", "trailers do not end the stream";
}

impl Refusal {
    /// What the refusal of a request means for the exchange: with it comes the status of the answer.
    pub fn cause(self) -> Cause {
        match self {
            Self::TooLarge | Self::TooManyFields => Cause::FieldsTooLarge,
            Self::PathTooLong => Cause::UriTooLong,
            Self::PathInvalid => Cause::PathInvalid,
            Self::AuthorityMissing | Self::AuthorityInvalid | Self::HostRepeated | Self::HostMismatch => {
                Cause::AuthorityInvalid
            }
            Self::MethodTooLong => Cause::NotImplemented,
            Self::ExpectationUnknown => Cause::ExpectationFailed,
            _ => Cause::RequestMalformed,
        }
    }

    /// The code with which the stream is reset.
    pub(super) fn reset_code(self) -> ErrorCode {
        match self.cause() {
            Cause::RequestMalformed | Cause::PathInvalid | Cause::AuthorityInvalid => {
                ErrorCode::PROTOCOL_ERROR
            }
            _ => ErrorCode::NO_ERROR,
        }
    }
}

/// Why a request cannot be sent on this connection. Nothing was sent: it may go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many streams are open as the server allows, or we do.
    #[error("no stream is free on the connection")]
    NoStream,
    /// GOAWAY was sent or received, or the connection has failed.
    #[error("connection is going away")]
    GoingAway,
    /// Every stream id has been used (RFC 9113 §5.1.1).
    #[error("stream ids are used up")]
    IdsUsedUp,
    /// The server has not enabled extended CONNECT (RFC 8441 §3).
    #[error("server does not know extended CONNECT")]
    NoExtendedConnect,
    /// The head is larger than the server accepts (SETTINGS_MAX_HEADER_LIST_SIZE).
    #[error("request head is larger than the server accepts")]
    HeadTooLarge,
}

/// The stream has ended or was reset: nothing can be sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stream is gone")]
pub struct StreamGone;
