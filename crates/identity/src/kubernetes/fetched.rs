//! The keys of a cluster, fetched from its API server.
//!
//! Where they are is said by the issuer of the tokens (OpenID Connect Discovery 1.0 §4), unless the configuration says it. API
//! servers want to know who asks: the control plane shows the token of its own service account, so a discovery document cannot
//! lead to another origin.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use http::uri::Scheme;
use http::{Request, Uri};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rhumb_policy::jwt::service_account::Reader;
use rhumb_tls::{AsyncTls, ClientSpec, ClientTls, Roots, Verify};
use serde::Deserialize;

use super::MAX_KEYS;
use crate::file;

/// How long fetching may take, discovery included.
const TIME: Duration = Duration::from_secs(10);

/// How much is told of what went wrong: some of it are words of the server. Unit: characters.
const TOLD: usize = 512;

/// The largest file of roots or of a token. Unit: bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// How keys are fetched.
#[derive(Debug, Clone, Default)]
pub struct FetchedKeys {
    /// The `https` URL of the keys. **Default**: what the issuer says.
    pub url: Option<String>,
    /// PEM: the roots of the server, read anew each time. **Default**: those of the system.
    pub roots: Option<PathBuf>,
    /// A token to show there, read anew each time: the kubelet renews it. **Default**: none.
    pub token: Option<PathBuf>,
}

/// What an issuer says of itself.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Fetches the keys of an issuer.
///
/// **Errors**: what went wrong where, for people.
pub(super) async fn fetch(issuer: &str, from: &FetchedKeys) -> Result<Reader, String> {
    let fetching = async {
        let url = match &from.url {
            Some(url) => url.clone(),
            None => discover(issuer, from).await?,
        };
        Reader::parse(&get(&url, from).await?).map_err(|why| format!("{url}: {why}"))
    };
    tokio::time::timeout(TIME, fetching)
        .await
        .unwrap_or_else(|_| Err(format!("{issuer}: no answer within {} s", TIME.as_secs())))
        .map_err(|why| why.chars().take(TOLD).collect())
}

async fn discover(issuer: &str, from: &FetchedKeys) -> Result<String, String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let text = get(&url, from).await?;
    let found: Discovery = serde_json::from_slice(&text).map_err(|error| format!("{url}: {error}"))?;
    // OpenID Connect Discovery 1.0 §4.3: another issuer's document says nothing about this one.
    if found.issuer != issuer {
        return Err(format!("{url}: it is of the issuer {}", found.issuer));
    }
    if origin(&found.jwks_uri).is_none_or(|there| Some(there) != origin(issuer)) {
        // The keys are fetched with a token that not everybody may see.
        let there = found.jwks_uri;
        return Err(format!("{url}: the keys are elsewhere; if they may come from {there}, name that URL"));
    }
    Ok(found.jwks_uri)
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let url: Uri = url.parse().ok()?;
    let port = url.port_u16().unwrap_or(443);
    Some((url.scheme_str()?.to_owned(), url.host()?.to_ascii_lowercase(), port))
}

/// The content at a URL.
async fn get(url: &str, from: &FetchedKeys) -> Result<Vec<u8>, String> {
    let told = |why: String| format!("{url}: {why}");
    let uri: Uri = url.parse().map_err(|_| told("it is no URL".to_owned()))?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
        return Err(told("it has no host".to_owned()));
    };
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(told("keys come over https only: whoever changes them on the way is let in".to_owned()));
    }
    let server = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    let tls = tls(host, from.roots.as_deref()).map_err(told)?;
    let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority.as_str())
        .header(ACCEPT, "application/json");
    if let Some(path) = &from.token {
        let token = String::from_utf8(read(path)?).map_err(|_| format!("{}: no text", path.display()))?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| format!("{}: no token", path.display()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(String::new()).map_err(|error| told(error.to_string()))?;
    let stream =
        rhumb_net::connect::connect_to_host(&server).await.map_err(|error| told(error.to_string()))?;
    let ip = stream.peer_addr().map_err(|error| told(error.to_string()))?.ip();
    let stream = AsyncTls::connect(stream, &tls, ip).await.map_err(|error| told(error.to_string()))?;
    let (mut asking, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(error.to_string()))?;
    let asked = async {
        let response = asking.send_request(request).await.map_err(|error| told(error.to_string()))?;
        if response.status() != http::StatusCode::OK {
            return Err(told(format!("it answers {}", response.status())));
        }
        content(response.into_body()).await.map_err(told)
    };
    tokio::pin!(asked, connection);
    tokio::select! {
        content = &mut asked => content,
        // What was read before it ended counts.
        _ = &mut connection => asked.await,
    }
}

/// All of a content that is not too large.
async fn content(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        if (all.len() + data.len()) as u64 > MAX_KEYS {
            return Err(format!("it sends more than {MAX_KEYS} bytes"));
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

fn tls(host: &str, roots: Option<&Path>) -> Result<ClientTls, String> {
    let roots = match roots {
        Some(path) => Roots::parse(&read(path)?, &path.display().to_string()),
        None => Roots::system(),
    };
    let mut spec =
        ClientSpec::new(Verify::Full(roots.map_err(|error| error.to_string())?), "keys of a cluster");
    // RFC 3986 §3.2.2: an address of IPv6 stands in brackets, which are not part of it.
    spec.server_name = Some(host.trim_start_matches('[').trim_end_matches(']').to_owned());
    spec.alpn = vec![b"http/1.1".to_vec()];
    ClientTls::build(spec).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    file::read(path, MAX_FILE)
        .and_then(|text| text.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
