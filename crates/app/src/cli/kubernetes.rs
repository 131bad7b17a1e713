//! Which Kubernetes service accounts may join a mesh.

use std::path::PathBuf;

use rhumb_identity::{FetchedKeys, Keys, Kubernetes, KubernetesSettings};

/// Where the kubelet puts what a pod's own service account has.
const OWN_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Tokens of a Kubernetes cluster, on the command line.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct KubernetesArgs {
    /// Who signs the tokens of a Kubernetes cluster whose service accounts may join: its --service-account-issuer
    #[arg(long, value_name = "URL")]
    kubernetes_issuer: Option<String>,
    /// Keys of the cluster: a file with what it has at /openid/v1/jwks, or the URL of that. Default: where the issuer says
    #[arg(long, value_name = "FILE|URL", requires = "kubernetes_issuer")]
    kubernetes_keys: Option<String>,
    /// PEM file of the roots of the server of the keys. Default: those of the pod's service account, else those of the system
    #[arg(long, value_name = "FILE", requires = "kubernetes_issuer")]
    kubernetes_ca: Option<PathBuf>,
    /// File of a token to show to the server of the keys. Default: that of the pod's service account, with its own roots only
    #[arg(long, value_name = "FILE", requires = "kubernetes_issuer")]
    kubernetes_token: Option<PathBuf>,
    /// For whom its tokens must be
    #[arg(long, value_name = "TEXT", default_value = "rhumb")]
    kubernetes_audience: String,
}

impl KubernetesArgs {
    /// What is asked for, if anything is.
    ///
    /// # Errors
    /// For a file of keys that is of no use.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Kubernetes>> {
        let Some(issuer) = self.kubernetes_issuer.clone() else { return Ok(None) };
        let keys = match &self.kubernetes_keys {
            Some(file) if !file.contains("://") => Keys::File(file.into()),
            url => Keys::Fetched(FetchedKeys {
                url: url.clone(),
                roots: self.kubernetes_ca.clone().or_else(|| of_own_account("ca.crt")),
                token: self.kubernetes_token.clone().or_else(|| self.own_token()),
            }),
        };
        let settings = KubernetesSettings { issuer, audience: self.kubernetes_audience.clone(), keys };
        Ok(Some(Kubernetes::open(settings)?))
    }

    /// The token of the pod's service account, where the server proves to be the one that it is for: with other roots it may be
    /// anybody.
    fn own_token(&self) -> Option<PathBuf> {
        self.kubernetes_ca.is_none().then(|| of_own_account("token")).flatten()
    }
}

fn of_own_account(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(OWN_ACCOUNT).join(name);
    path.exists().then_some(path)
}
