//! The worker as a member of the mesh, for policies that sign and verify.

use rhumb_policy::Member;
use rhumb_tls::mesh::Membership;

use crate::worker::Worker;

impl Worker {
    fn membership(&self) -> Option<Membership> {
        self.plan().mesh.as_ref().and_then(|mesh| mesh.membership.clone())
    }
}

impl Member for Worker {
    fn id(&self) -> Option<Box<str>> {
        self.membership()?.id().map(|id| id.as_str().into())
    }

    fn generation(&self) -> u64 {
        self.membership().map_or(0, |membership| membership.generation())
    }

    fn sign(&self, say: &mut dyn FnMut(&[&[u8]]) -> Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)> {
        let signed = self.membership()?.sign(|chain| {
            let chain: Vec<&[u8]> = chain.iter().map(|der| &**der).collect();
            say(&chain)
        });
        signed.map(|(message, signature)| (message, signature.to_vec()))
    }

    fn verify(
        &self,
        chain: &[Vec<u8>],
        message: &[u8],
        signature: &[u8],
        unix: u64,
    ) -> Result<Box<str>, String> {
        let membership = self.membership().ok_or_else(|| "this proxy is in no mesh".to_owned())?;
        let signer =
            membership.verify_signed(chain, message, signature, unix).map_err(|why| why.to_string())?;
        Ok(signer.id.as_str().into())
    }
}
