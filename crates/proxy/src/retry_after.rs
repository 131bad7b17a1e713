//! How long a response asks to wait: Retry-After (RFC 9110 §10.2.3), and gRPC's `grpc-retry-pushback-ms`.

use std::time::Duration;

use rhumb_codec::field::Known;
use rhumb_codec::head::ResponseHead;

/// What a response asks for; `None` when it asks for nothing that can be read. Never ("-1" of gRPC) is a time beyond any
/// bound. `unix_seconds` is asked for only when a date is compared with it.
pub(crate) fn read(rsp: &ResponseHead, unix_seconds: impl FnOnce() -> u64) -> Option<Duration> {
    if let Some(value) = rsp.fields.get_only(Known::RetryAfter) {
        return parse(value, unix_seconds);
    }
    let value = rsp.fields.get_only(Known::GrpcRetryPushbackMs)?;
    let ms: i64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    Some(u64::try_from(ms).map_or(Duration::MAX, Duration::from_millis))
}

fn parse(value: &[u8], unix_seconds: impl FnOnce() -> u64) -> Option<Duration> {
    let value = value.trim_ascii();
    if value.iter().all(u8::is_ascii_digit) {
        // More digits than fit are a very long time.
        let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty())?;
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let at = crate::date::parse(value)?;
    Some(Duration::from_secs(at.saturating_sub(unix_seconds())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = || 784_111_770;
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let read = parse(text.as_bytes(), now);
            assert_eq!(read.map(|wait| wait.as_secs()), seconds, "{text}");
        }
        assert_eq!(parse(b"99999999999999999999999", now), Some(Duration::MAX));
        let mut rsp = ResponseHead::with_status(200);
        rsp.fields.append(Known::GrpcRetryPushbackMs, b"250");
        assert_eq!(read(&rsp, now), Some(Duration::from_millis(250)));
        rsp.fields.set(Known::GrpcRetryPushbackMs, b"-1");
        assert_eq!(read(&rsp, now), Some(Duration::MAX));
    }
}
