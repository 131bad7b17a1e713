//! A connection to an admin listener, in plain text or over TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rhumb_tls::{AsyncTls, Certificate, CertificateSource, ClientSpec, ClientTls, Roots, Verify};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// How admin listeners are reached that speak TLS.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Admin listener with TLS")]
pub(crate) struct TlsArgs {
    /// File with the CA that signs the certificate of the admin listener
    #[arg(long, global = true, value_name = "FILE", env = "RHUMB_ADMIN_CA")]
    admin_ca: Option<PathBuf>,
    /// Name in that certificate. Default: the address
    #[arg(long, global = true, value_name = "NAME", env = "RHUMB_ADMIN_NAME", requires = "admin_ca")]
    admin_name: Option<String>,
    /// File with a certificate to show it
    #[arg(long, global = true, value_name = "FILE", env = "RHUMB_ADMIN_CERT", requires = "admin_key")]
    admin_cert: Option<PathBuf>,
    /// File with the key of the certificate to show
    #[arg(long, global = true, value_name = "FILE", env = "RHUMB_ADMIN_KEY", requires = "admin_ca")]
    admin_key: Option<PathBuf>,
}

/// What this command line says of it; nothing is plain text.
static TLS: OnceLock<TlsArgs> = OnceLock::new();

impl TlsArgs {
    /// Holds for every connection of this process to an admin listener.
    pub(crate) fn use_for_all(self) {
        // Set once, before anybody connects.
        let _ = TLS.set(self);
    }

    fn client(&self) -> io::Result<Option<ClientTls>> {
        let Some(ca) = &self.admin_ca else { return Ok(None) };
        let read = |path: &PathBuf| {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            std::fs::read(path).map_err(named)
        };
        let wrong = |error: rhumb_tls::Error| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let roots = Roots::parse(&read(ca)?, &ca.display().to_string()).map_err(wrong)?;
        let mut spec = ClientSpec::new(Verify::Full(roots), "--admin-ca");
        spec.server_name.clone_from(&self.admin_name);
        spec.alpn = vec![b"http/1.1".to_vec()];
        if let (Some(certificate), Some(key)) = (&self.admin_cert, &self.admin_key) {
            let origin = certificate.display().to_string().into();
            let source = CertificateSource { chain: read(certificate)?, key: read(key)?, origin };
            spec.identity = Some(Certificate::parse(&source).map_err(wrong)?);
        }
        ClientTls::build(spec).map(Some).map_err(wrong)
    }
}

/// A connection; each read and write takes a bounded time.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// A TLS connection, driven while somebody waits for it.
pub(super) struct Tls {
    stream: AsyncTls,
    runtime: Runtime,
    patience: Duration,
}

impl Connection {
    /// Connects.
    pub(super) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let Some(tls) = TLS.get().map(TlsArgs::client).transpose()?.flatten() else {
            return Ok(Self::Plain(stream));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        stream.set_nonblocking(true)?;
        let stream = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let shaken = tokio::time::timeout(patience, AsyncTls::connect(stream, &tls, address.ip())).await;
            let shaken = shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            shaken.map_err(|error| io::Error::other(error.to_string()))
        })?;
        Ok(Self::Tls(Box::new(Tls { stream, runtime, patience })))
    }

    /// How long a read may take from here on.
    pub(super) fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.set_read_timeout(Some(patience)),
            Self::Tls(tls) => {
                tls.patience = patience;
                Ok(())
            }
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Tls(tls) => {
                let Tls { stream, runtime, patience } = &mut **tls;
                let read =
                    runtime.block_on(async { tokio::time::timeout(*patience, stream.read(buf)).await });
                read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => {
                let Tls { stream, runtime, patience } = &mut **tls;
                let written = async {
                    let written = stream.write(bytes).await?;
                    stream.flush().await?;
                    Ok(written)
                };
                let written = runtime.block_on(async { tokio::time::timeout(*patience, written).await });
                written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
