//! Versions of resources.

use std::fmt;
use std::str::FromStr;

/// The version of a resource: which revision made it, and a hash of what it says.
///
/// Written as `12.9f86d081884c7d65`. The number grows; two resources with one hash say the same, whichever control plane
/// made them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// The revision; of endpoints, a count of the control plane.
    pub number: u64,
    /// The hash of the content; 0 of what does not exist.
    pub hash: u64,
}

impl Version {
    /// The version of what does not exist, since a revision.
    pub fn absent(number: u64) -> Self {
        Self { number, hash: Self::ABSENT }
    }

    /// The version of content.
    pub fn of(number: u64, content: &[u8]) -> Self {
        Self { number, hash: hash(content) }
    }

    /// True for the version of what does not exist.
    pub fn is_absent(self) -> bool {
        self.hash == Self::ABSENT
    }

    const ABSENT: u64 = 0;
}

/// FNV-1a with a finish that spreads its bits: the same on every machine and in every version. No protection against
/// anybody who wants two contents with one hash; content comes from the control plane only.
fn hash(content: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in content {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)).max(1)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.number, self.hash)
    }
}

/// The text is not a version of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the version is not NUMBER.HASH")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (number, hash) = text.split_once('.').ok_or(NotAVersion)?;
        let number = number.parse().map_err(|_| NotAVersion)?;
        let hash = u64::from_str_radix(hash, 16).map_err(|_| NotAVersion)?;
        Ok(Self { number, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written() {
        for version in [Version::absent(7), Version::of(3, b"content"), Version::of(u64::MAX, b"")] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for text in ["", "7", "7.x", ".1", "x.1", "7.", "-1.0"] {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion), "{text:?}");
        }
    }

    #[test]
    fn content_has_never_the_hash_of_what_is_not_there() {
        assert!(!Version::of(1, b"").is_absent());
        assert_ne!(Version::of(1, b"a").hash, Version::of(1, b"b").hash);
    }
}
