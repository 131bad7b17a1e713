//! Why a message is refused. One variant per rule: tests, logs and metrics tell them apart by `code`.

use rhumb_base::failure::Cause;

macro_rules! errors {
    ($(#[$outer:meta])* $enum:ident { $($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)* }
     $($(#[$nested_doc:meta])* nested $nested:ident($inner:ident);)?) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum $enum {
            $($(#[$doc])* #[error($text)] $name,)*
            $($(#[$nested_doc])* #[error(transparent)] $nested(#[from] $inner),)?
        }

        impl $enum {
            /// A stable name for logs and metrics.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                    $(Self::$nested(inner) => inner.code(),)?
                }
            }
        }
    };
}

errors! {
    /// A rule about field lines or framing that a message breaks; the same for requests, responses and trailers.
    FieldError {
        /// A line ends in LF alone (RFC 9112 §2.2).
        BareLf = "bare_lf", "a line ends in LF without CR";
        /// CR without LF (RFC 9112 §2.2).
        BareCr = "bare_cr", "a CR is not followed by LF";
        /// White space between start line and first field (RFC 9112 §2.2).
        SpaceBeforeFirstField = "space_before_first_field", "white space precedes the first field";
        /// A line begins with white space (RFC 9112 §5.2).
        ObsFold = "obs_fold", "a field line is folded";
        /// White space in a name or before its colon (RFC 9112 §5.1).
        SpaceInFieldName = "space_in_field_name", "a field name contains or precedes white space";
        /// Nothing before the colon.
        FieldNameEmpty = "field_name_empty", "a field name is empty";
        /// A byte that no token has (RFC 9110 §5.6.2).
        FieldNameInvalid = "field_name_invalid", "a field name has an invalid byte";
        /// A line that ends before its colon.
        FieldWithoutColon = "field_without_colon", "a field line has no colon";
        /// A control byte in a value (RFC 9110 §5.5).
        FieldValueInvalid = "field_value_invalid", "a field value has a control byte";
        /// More lines than the limit.
        TooManyFields = "too_many_fields", "there are more field lines than allowed";
        /// More bytes than the limit.
        SectionTooLong = "section_too_long", "the field section is longer than allowed";
        /// Host, Content-Length or Transfer-Encoding with a tab around the value: legal, and read differently.
        FramingObscured = "framing_obscured", "a framing field has a tab around its value";
        /// `Content_Length` and the like: a name that gateways to CGI turn into a framing field.
        FramingAlias = "framing_alias", "a field name differs from a framing field only by an underscore";
        /// Two Content-Length lines, equal ones too (RFC 9112 §6.3 lets a recipient repair these; others differ).
        ContentLengthRepeated = "content_length_repeated", "Content-Length occurs more than once";
        /// Not digits only, or 2⁶³ and more.
        ContentLengthInvalid = "content_length_invalid", "Content-Length is not a number below 2^63";
        /// Both framings (RFC 9112 §6.1).
        TwoFramings = "two_framings", "Content-Length and Transfer-Encoding occur together";
        /// Two Transfer-Encoding lines.
        TransferEncodingRepeated = "transfer_encoding_repeated", "Transfer-Encoding occurs more than once";
        /// The final coding is not exactly one `chunked` (RFC 9112 §6.3).
        TransferEncodingInvalid = "transfer_encoding_invalid", "Transfer-Encoding does not end in one chunked";
        /// A coding before `chunked` (RFC 9112 §6.1: 501).
        TransferCodingUnknown = "transfer_coding_unknown", "Transfer-Encoding names a coding that is not supported";
        /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
        TransferEncodingInHttp10 = "transfer_encoding_in_http10", "Transfer-Encoding occurs in an HTTP/1.0 message";
        /// Connection is not a list of tokens.
        ConnectionInvalid = "connection_invalid", "Connection is not a list of tokens";
        /// More connection options than [`super::MAX_CONNECTION_OPTIONS`].
        TooManyConnectionOptions = "too_many_connection_options", "Connection has more options than allowed";
        /// A request's Connection names a field that every recipient needs (RFC 9110 §7.6.1).
        ConnectionNominatesEndToEnd = "connection_nominates_end_to_end", "Connection names a field that is not its own";
        /// Upgrade is not a list of protocols (RFC 9110 §7.8).
        UpgradeInvalid = "upgrade_invalid", "Upgrade is not a list of protocols";
    }
}

errors! {
    /// Why a request is refused.
    RequestError {
        /// The client speaks HTTP/2 with prior knowledge (RFC 9113 §3.4). Nothing was consumed.
        Http2Preface = "http2_preface", "the connection begins with the HTTP/2 preface";
        /// More than one empty line before the request line (RFC 9112 §2.2 allows one).
        EmptyLines = "empty_lines", "more than one empty line precedes the request";
        /// The method is not a token, or nothing.
        MethodInvalid = "method_invalid", "the method is not a token";
        /// The method exceeds [`super::MAX_METHOD_BYTES`] (RFC 9112 §3: 501).
        MethodTooLong = "method_too_long", "the method is longer than any known one";
        /// Other than one space between the parts of the request line, or white space after it (RFC 9112 §3).
        RequestLineSpace = "request_line_space", "the request line is not separated by single spaces";
        /// A byte that no request target has: control, not ASCII, `#`.
        TargetInvalid = "target_invalid", "the request target has an invalid byte";
        /// The target exceeds the limit (RFC 9112 §3: 414).
        TargetTooLong = "target_too_long", "the request target is longer than allowed";
        /// The form of the target does not fit the method (RFC 9112 §3.2).
        TargetForm = "target_form", "the form of the request target does not fit the method";
        /// An absolute target whose scheme is neither http nor https.
        TargetScheme = "target_scheme", "the scheme of the request target is not supported";
        /// An absolute target whose scheme is not the connection's (RFC 9110 §7.4: 421).
        TargetSchemeMismatch = "target_scheme_mismatch", "the scheme of the request target is not that of the connection";
        /// The authority in the target is not valid.
        TargetAuthorityInvalid = "target_authority_invalid", "the authority of the request target is not valid";
        /// The request line ends after the target (HTTP/0.9).
        VersionMissing = "version_missing", "the request line has no version";
        /// The version is not of the form HTTP/d.d.
        VersionInvalid = "version_invalid", "the version is malformed";
        /// A version other than 1.0 and 1.1.
        VersionNotSupported = "version_not_supported", "the HTTP version is not supported";
        /// HTTP/1.1 without Host (RFC 9112 §3.2).
        HostMissing = "host_missing", "Host is missing";
        /// More than one Host (RFC 9112 §3.2).
        HostRepeated = "host_repeated", "Host occurs more than once";
        /// Host is not an authority.
        HostInvalid = "host_invalid", "Host is not a valid authority";
        /// Host names another authority than the target. RFC 9112 §3.2.2 lets the target win; a hop that does not
        /// know that would route by Host.
        HostMismatch = "host_mismatch", "Host and request target name different authorities";
        /// CONNECT or TRACE with content (RFC 9110 §9.3.6, §9.3.8).
        ContentNotAllowed = "content_not_allowed", "the method does not allow content";
        /// Expect is not `100-continue` (RFC 9110 §10.1.1).
        ExpectationUnknown = "expectation_unknown", "Expect asks for something unknown";
    }
    /// A rule about fields or framing.
    nested Fields(FieldError);
}

errors! {
    /// Why a response is refused.
    ResponseError {
        /// The status line does not begin with HTTP/1.x and a space, or has an invalid byte.
        StatusLineInvalid = "status_line_invalid", "the status line is malformed";
        /// A version other than 1.0 and 1.1.
        VersionNotSupported = "version_not_supported", "the HTTP version is not supported";
        /// Not three digits from 100 to 599.
        StatusInvalid = "status_invalid", "the status code is not a number from 100 to 599";
        /// Transfer-Encoding, or a Content-Length other than 0, in 1xx or 204 (RFC 9112 §6.1, RFC 9110 §8.6).
        ContentNotAllowed = "content_not_allowed", "the status does not allow content";
        /// 101 without Upgrade (RFC 9110 §15.2.2).
        UpgradeMissing = "upgrade_missing", "a 101 response names no protocol";
    }
    /// A rule about fields or framing.
    nested Fields(FieldError);
}

errors! {
    /// Why content cannot be decoded. The connection is of no use afterwards: the message's end is unknown.
    BodyError {
        /// No digit, a byte other than a hexadecimal digit, or white space (RFC 9112 §7.1).
        ChunkSizeInvalid = "chunk_size_invalid", "a chunk size is not a hexadecimal number";
        /// More than 16 digits, or 2⁶³ and more.
        ChunkSizeTooLarge = "chunk_size_too_large", "a chunk size is 2^63 or more";
        /// A control byte in a chunk extension.
        ChunkExtensionInvalid = "chunk_extension_invalid", "a chunk extension has a control byte";
        /// More extension bytes than the limit.
        ChunkExtensionsTooLong = "chunk_extensions_too_long", "the chunk extensions are longer than allowed";
        /// A chunk size line that does not end in CRLF.
        ChunkLineEnd = "chunk_line_end", "a chunk size line does not end in CRLF";
        /// A chunk's data is not followed by CRLF: the data is longer than its size.
        ChunkDataEnd = "chunk_data_end", "chunk data is not followed by CRLF";
        /// The connection ended before the content did.
        Incomplete = "incomplete", "the connection ended before the content did";
    }
    /// The trailer section breaks a rule.
    nested Trailers(FieldError);
}

impl FieldError {
    fn is_about_size(self) -> bool {
        matches!(self, Self::TooManyFields | Self::SectionTooLong)
    }
}

impl RequestError {
    /// The failure that this is. It says which status the answer has.
    pub fn cause(self) -> Cause {
        match self {
            Self::Http2Preface | Self::VersionNotSupported => Cause::VersionNotSupported,
            Self::MethodTooLong | Self::Fields(FieldError::TransferCodingUnknown) => Cause::NotImplemented,
            Self::TargetTooLong => Cause::UriTooLong,
            Self::TargetSchemeMismatch => Cause::MisdirectedRequest,
            Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::HostMismatch
            | Self::TargetAuthorityInvalid => Cause::AuthorityInvalid,
            Self::ExpectationUnknown => Cause::ExpectationFailed,
            Self::Fields(error) if error.is_about_size() => Cause::FieldsTooLarge,
            _ => Cause::RequestMalformed,
        }
    }
}

impl ResponseError {
    /// The failure that this is.
    pub fn cause(self) -> Cause {
        match self {
            Self::UpgradeMissing => Cause::UpgradeFailed,
            Self::Fields(error) if error.is_about_size() => Cause::ResponseFieldsTooLarge,
            _ => Cause::ResponseMalformed,
        }
    }
}

impl BodyError {
    /// The failure that this is in the content of a request.
    pub fn cause_in_request(self) -> Cause {
        match self {
            Self::Incomplete => Cause::ClientClosed,
            Self::Trailers(error) if error.is_about_size() => Cause::FieldsTooLarge,
            _ => Cause::RequestMalformed,
        }
    }

    /// The failure that this is in the content of a response.
    pub fn cause_in_response(self) -> Cause {
        match self {
            Self::Incomplete => Cause::ResponseIncomplete,
            Self::Trailers(error) if error.is_about_size() => Cause::ResponseFieldsTooLarge,
            _ => Cause::ResponseMalformed,
        }
    }
}
