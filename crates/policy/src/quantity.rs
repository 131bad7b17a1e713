//! Durations and sizes in the bodies of policies, written as everywhere else in documents.

use std::time::Duration;

use rhumb_base::unit::{parse_byte_size, parse_duration};
use rhumb_cel::value::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::Invalid;

/// A size: a number of bytes, or text with a unit such as `64Ki`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Digits with a unit: k, M and G are powers of 1000, Ki, Mi and Gi of 1024.
    Text(String),
}

impl Size {
    /// The number of bytes.
    ///
    /// # Errors
    /// When the text is no size; `field` is named.
    pub fn read(&self, field: &str) -> Result<u64, Invalid> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => {
                parse_byte_size(text).map_err(|error| Invalid::new(field, error.to_string(), ""))
            }
        }
    }
}

/// A duration, if one is written.
///
/// # Errors
/// When the text is none (GEP-2257); `field` is named.
pub fn duration(field: &str, text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    let read = text.map(parse_duration).transpose();
    read.map_err(|error| Invalid::new(field, error.to_string(), ""))
}

/// A point in time, if one is written. **Unit**: nanoseconds since 1970; what is before is 0.
///
/// # Errors
/// When the text is none (RFC 3339); `field` is named.
pub fn instant(field: &str, text: Option<&str>) -> Result<Option<u64>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let time = Timestamp::parse(text).ok_or_else(|| {
        Invalid::new(field, format!("`{text}` is no point in time"), "write it so: 2030-01-31T12:00:00Z")
    })?;
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    Ok(Some(seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())))
}

/// A duration that cannot be zero, if one is written.
///
/// # Errors
/// When it is zero, or the text is none (GEP-2257); `field` is named.
pub fn positive(field: &str, text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    match duration(field, text)? {
        Some(Duration::ZERO) => {
            Err(Invalid::new(field, "nothing is ever done in no time", "leave it out for the default"))
        }
        other => Ok(other),
    }
}
