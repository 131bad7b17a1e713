//! Large futures on the heap without a copy.

use std::pin::Pin;

/// Makes a future where it will lie.
///
/// `Box::pin(make())` makes it on the stack and copies it, several KiB for an exchange: an allocation may unwind, and then
/// it would have to be dropped there. Here the place is allocated first, and the compiler has no reason to make a copy.
#[inline(always)]
pub(crate) fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let place = Box::new_uninit();
    Box::into_pin(Box::write(place, make()))
}
