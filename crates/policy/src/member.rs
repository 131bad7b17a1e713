//! What policies may ask of the process as a member of the mesh: to sign in its name, and to say who else has signed.

/// A member of the mesh.
pub trait Member {
    /// Who it is, as a SPIFFE ID; `None` as long as it has no certificate, or is in no mesh.
    fn id(&self) -> Option<Box<str>>;

    /// Grows with each revocation: what was verified before has to be verified again.
    fn generation(&self) -> u64;

    /// Signs with the key of its certificate (ES256, RFC 7518 §3.4) what `say` makes of its chain (DER, its own first), and
    /// gives both.
    fn sign(&self, say: &mut dyn FnMut(&[&[u8]]) -> Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)>;

    /// The SPIFFE ID of who has signed a message, verified against the roots of the mesh.
    ///
    /// # Errors
    /// Why it counts for nothing, in words that a caller may be told.
    fn verify(
        &self,
        chain: &[Vec<u8>],
        message: &[u8],
        signature: &[u8],
        unix: u64,
    ) -> Result<Box<str>, String>;
}
