//! Where a database is, and how it is spoken to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rhumb_tls::{ClientSpec, ClientTls, Roots, Verify};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// A database: `postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=verify-full&sslrootcert=FILE`.
///
/// Within a machine it is spoken to in plain text, with others only over TLS and with a certificate that is verified, unless
/// `sslmode=disable` is written. What would encrypt without looking who is there is not taken.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: Config,
    pub(crate) tls: Option<ClientTls>,
    shown: String,
}

/// A text that is no address of a database. The text is not repeated: it may have a password.
#[derive(Debug, thiserror::Error)]
pub enum NotAnAddress {
    /// Not of this form.
    #[error("not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Form,
    /// It names no user, and neither does this machine.
    #[error("no user is named, and /etc/passwd has none for the one that this process runs as")]
    User,
    /// A mode that does not verify.
    #[error("sslmode is `disable` or `verify-full`")]
    Mode,
    /// TLS cannot be set up.
    #[error("TLS to the database: {0}")]
    Tls(#[from] rhumb_tls::Error),
    /// The file of authorities cannot be read.
    #[error("{0}: {1}")]
    Authorities(String, #[source] std::io::Error),
}

impl Address {
    /// Where it is, without who asks and how it proves that.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let text = text.trim();
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(NotAnAddress::Form);
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut mode, mut authorities, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => authorities = Some(value),
                _ => rest.push(pair),
            }
        }
        let plain = format!("{base}?{}", rest.join("&"));
        let mut config: Config = plain.trim_end_matches('?').parse().map_err(|_| NotAnAddress::Form)?;
        let host = match config.get_hosts() {
            [Host::Tcp(name)] => Some(name.clone()),
            [Host::Unix(_)] => None,
            _ => return Err(NotAnAddress::Form),
        };
        let is_near = host.as_deref().is_none_or(|name| {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        });
        let is_encrypted = match mode {
            Some("disable") => false,
            Some("verify-full") => true,
            None => !is_near,
            Some(_) => return Err(NotAnAddress::Mode),
        };
        let tls = if is_encrypted {
            let roots = match authorities {
                Some(file) => {
                    let text = std::fs::read(file)
                        .map_err(|error| NotAnAddress::Authorities(file.to_owned(), error))?;
                    Roots::parse(&text, file)?
                }
                None => Roots::system()?,
            };
            let mut spec = ClientSpec::new(Verify::Full(roots), "the store");
            spec.server_name.clone_from(&host);
            Some(ClientTls::build(spec)?)
        } else {
            None
        };
        if config.get_user().is_none() {
            // The driver would ask the C library, and that its modules.
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            let uid = rustix::process::geteuid().as_raw();
            config.user(user_of(uid, &passwd).ok_or(NotAnAddress::User)?);
        }
        config.ssl_mode(if is_encrypted { SslMode::Require } else { SslMode::Disable });
        config.application_name("rhumb");
        let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
        let database = config.get_dbname().unwrap_or_default();
        let place = match config.get_hosts() {
            [Host::Unix(path)] => path.display().to_string(),
            _ => format!("{}:{port}", host.as_deref().unwrap_or_default()),
        };
        Ok(Self { shown: format!("postgres://{place}/{database}"), config, tls })
    }
}

/// The name of a user in a text of passwd(5).
fn user_of(uid: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// PostgreSQL's own port.
pub(crate) const DEFAULT_PORT: u16 = 5432;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_shown_nowhere() {
        let address: Address = "postgres://rhumb:hunter2@127.0.0.1:5433/mesh".parse().unwrap();
        assert_eq!(address.shown(), "postgres://127.0.0.1:5433/mesh");
        assert!(!format!("{address:?}").contains("hunter2"));
        let error = "postgres://rhumb:hunter2@127.0.0.1:notaport/mesh".parse::<Address>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn without_a_user_it_is_the_one_of_this_process() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n# a:b\nrhumb:x:998:998::/:/bin/false\nlater:x:998:1::/:\n";
        assert_eq!(user_of(998, passwd), Some("rhumb"));
        assert_eq!(user_of(0, passwd), Some("root"));
        assert_eq!(user_of(1, passwd), None);
        let user = |text: &str| text.parse::<Address>().unwrap().config.get_user().map(str::to_owned);
        assert_eq!(user("postgres://ann@localhost/m").as_deref(), Some("ann"));
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let own = user_of(rustix::process::geteuid().as_raw(), &passwd);
        assert_eq!(user("postgres://localhost/m").as_deref(), own);
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_and_verified() {
        let is_encrypted = |text: &str| text.parse::<Address>().map(|address| address.tls.is_some());
        assert!(!is_encrypted("postgres://u@localhost/m").unwrap());
        assert!(!is_encrypted("postgres://u@[::1]/m").unwrap());
        assert!(!is_encrypted("postgres://u@%2Frun%2Fpostgresql/m").unwrap());
        assert!(!is_encrypted("postgres://u@db.example/m?sslmode=disable").unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |text: &str| format!("{text}&sslrootcert={}", file.path().display());
        // The file of authorities is read: nothing goes without one.
        assert!(matches!(
            is_encrypted(&with("postgres://u@db.example/m?connect_timeout=3")),
            Err(NotAnAddress::Tls(_))
        ));
        for weak in ["require", "prefer", "verify-ca"] {
            let text = format!("postgres://u@db.example/m?sslmode={weak}");
            assert!(matches!(is_encrypted(&text), Err(NotAnAddress::Mode)), "{weak}");
        }
        for other in ["mysql://u@h/m", "", "postgres://", "postgres://u@a,b/m"] {
            assert!(is_encrypted(other).is_err(), "{other}");
        }
    }
}
