//! A copy of a short response's content, taken as it passes by: for who finds out which fields answers have.

use rhumb_telemetry::sightings::CONTENT_BYTES;

/// What has passed so far; nothing more once it is too long.
#[derive(Default)]
pub(crate) struct Glance {
    copied: Vec<u8>,
    is_too_long: bool,
}

impl Glance {
    /// Copies what passes.
    pub(crate) fn push(&mut self, data: &[u8]) {
        if self.is_too_long || self.copied.len().saturating_add(data.len()) > CONTENT_BYTES {
            (self.copied, self.is_too_long) = (Vec::new(), true);
            return;
        }
        self.copied.extend_from_slice(data);
    }

    /// All that has passed.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        (!self.is_too_long && !self.copied.is_empty()).then_some(&*self.copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_given_up() {
        let mut glance = Glance::default();
        assert_eq!(glance.whole(), None);
        glance.push(b"{}");
        assert_eq!(glance.whole(), Some(&b"{}"[..]));
        glance.push(&[b' '; CONTENT_BYTES]);
        glance.push(b"x");
        assert_eq!(glance.whole(), None);
    }
}
