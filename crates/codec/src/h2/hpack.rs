//! Field compression for HTTP/2 (RFC 7541).
//!
//! [`Decoder`] and [`Encoder`] each own a dynamic table that is allocated when it gets its first entry. Names that the
//! gateway knows travel as [`Name`], one byte: a field that refers to an entry costs no look-up of its name and no
//! validation, both were done when the entry was made.

mod name;
mod huffman;
mod table;
mod decoder;
mod encoder;

pub use decoder::{Block, Decoder, Field};
pub use encoder::Encoder;
pub use name::Name;

/// Largest dynamic table that either side keeps, whatever the settings say: lengths in it fit 16 bits.
pub const MAX_TABLE_SIZE: usize = 65_536;

/// What an entry costs beyond its bytes (RFC 7541 §4.1).
pub const ENTRY_OVERHEAD: usize = 32;

/// A field block that cannot be decoded. Always a connection error COMPRESSION_ERROR (RFC 9113 §4.3): the tables of
/// the two sides no longer agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackError {
    /// The block ends inside a field.
    #[error("field block ends inside a field")]
    Truncated,
    /// An integer is larger than any that is useful (RFC 7541 §5.1).
    #[error("integer in field block is too large")]
    IntegerTooLarge,
    /// Index 0, or one past the dynamic table (RFC 7541 §2.3.3, §6.1).
    #[error("index points to no table entry")]
    InvalidIndex,
    /// Huffman code with EOS or with padding that is not the first bits of EOS (RFC 7541 §5.2).
    #[error("invalid huffman code")]
    InvalidHuffman,
    /// A table size update after a field, or above the announced size (RFC 7541 §4.2, §6.3).
    #[error("table size update is misplaced or too large")]
    InvalidSizeUpdate,
    /// The table was reduced and the block does not begin with the update (RFC 7541 §4.2).
    #[error("table size update is missing")]
    MissingSizeUpdate,
}
