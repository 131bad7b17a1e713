//! Redis or Valkey as the store. Its own client: pipelines of scripts over one connection is all that is needed, and every
//! time and size has a bound here.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_net::connect::connect_blocking;
use rhumb_net::names::addresses_blocking;

use crate::client::Health;
use crate::resp::{self, Reply};
use crate::{Ask, Away, Grant, Rule, Store};

/// How long nothing is tried after a failure, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Processes that were not heard of for so long do not count as users. **Unit**: seconds.
const USER_SECONDS: &str = "10";

/// Who uses the store: KEYS 1 the set of users; ARGV user, seconds. Gives their number.
const USERS: &str = "\
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])";

/// KEYS 1 the time at which what was granted is paid for; ARGV interval, burst, ahead, want, back, debt; times in
/// microseconds: nanoseconds since 1970 do not fit into a double.
const PACED: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, ahead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local paid = tonumber(redis.call('GET', KEYS[1]) or '0')
paid = math.max(paid - ARGV[5] * interval, now) + ARGV[6] * interval
local room = math.floor((now + burst * interval + ahead - paid) / interval)
local permits = math.max(0, math.min(tonumber(ARGV[4]), room))
local first = paid + interval - burst * interval - now
if permits == 0 then first = math.max(first - ahead, 1) end
paid = paid + permits * interval
redis.call('SET', KEYS[1], string.format('%.3f', paid), 'PX', math.ceil((paid - now) / 1000) + 1000)
return {permits, math.floor(first), math.max(0, math.floor((now + burst * interval - paid) / interval))}";

/// KEYS 1 counts by part; ARGV part, parts, limit, fraction, keep, want, back, debt, part of what is given back. Parts of clocks that are ahead count.
const COUNTED: &str = "\
local part, oldest = tonumber(ARGV[1]), ARGV[1] - ARGV[2] + 1
if tonumber(ARGV[7]) > 0 and redis.call('HEXISTS', KEYS[1], ARGV[9]) == 1 then
  redis.call('HINCRBY', KEYS[1], ARGV[9], '-' .. ARGV[7])
end
local counts, used = redis.call('HGETALL', KEYS[1]), 0
for at = 1, #counts, 2 do
  if tonumber(counts[at]) < oldest then redis.call('HDEL', KEYS[1], counts[at])
  else used = used + counts[at + 1] end
end
local more = tonumber(ARGV[8])
local room = math.max(0, ARGV[3] - used - more)
local permits = math.min(tonumber(ARGV[6]), room, math.max(1, math.floor(room / ARGV[4])))
more = more + permits
if more ~= 0 then
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', part), string.format('%.0f', more))
  redis.call('EXPIRE', KEYS[1], ARGV[5])
end
return {permits, 0, room - permits}";

/// Where a server is: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User, if one is named.
    pub user: Option<String>,
    /// Password, if one is written.
    pub password: Option<String>,
    /// Number of the database.
    pub database: u32,
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let rest = match url.split_once("://") {
            Some(("redis" | "valkey", rest)) => rest,
            Some(("rediss" | "valkeys", _)) => return Err("asks for TLS, which is not supported"),
            _ => return Err("does not begin with redis://"),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(user), Some(password)),
            None => (None, None),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| "has a wrong port")?)
            }
            _ => (place, 6379),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("has no host");
        }
        let database = if path.is_empty() { Ok(0) } else { path.parse() };
        let written = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            host: host.to_owned(),
            port,
            user: written(user),
            password: written(password),
            database: database.map_err(|_| "has a database that is no number")?,
        })
    }
}

/// A server of Redis or Valkey.
pub struct Redis {
    at: RedisUrl,
    /// Bounds connecting and each round trip.
    timeout: Duration,
    /// Before every key.
    prefix: String,
    /// This process among the users.
    user: String,
    health: Arc<Health>,
    connection: Option<Connection>,
    back_off: Duration,
    resting_until: Option<Instant>,
}

struct Connection {
    stream: BufReader<Timed>,
    users: String,
    paced: String,
    counted: String,
}

/// Reads until a point in time.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }
}

impl Read for Timed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(to)
    }
}

impl Redis {
    /// A server that is connected to when it is asked. `timeout` bounds connecting, and each round trip; `user` names this
    /// process among those that use it.
    pub fn new(at: RedisUrl, timeout: Duration, prefix: String, user: String, health: Arc<Health>) -> Self {
        let back_off = BACK_OFF.0;
        Self { at, timeout, prefix, user, health, connection: None, back_off, resting_until: None }
    }

    fn connect(&self) -> io::Result<Connection> {
        // Finding the host has a bound of its own: a slow name server would else keep a fast store away.
        let addresses = addresses_blocking(&self.at.host, self.at.port)?;
        let until = Instant::now() + self.timeout;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match connect_blocking(address, left) {
                Ok(stream) => return self.greet(Timed { stream, until }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Says who asks, and leaves the scripts there.
    fn greet(&self, stream: Timed) -> io::Result<Connection> {
        let mut stream = BufReader::new(stream);
        let mut out = Vec::new();
        let mut commands = 0;
        let mut say = |parts: &[&[u8]]| {
            resp::write(&mut out, parts);
            commands += 1;
        };
        match (&self.at.user, &self.at.password) {
            (Some(user), Some(password)) => say(&[b"AUTH", user.as_bytes(), password.as_bytes()]),
            (None, Some(password)) => say(&[b"AUTH", password.as_bytes()]),
            _ => {}
        }
        if self.at.database != 0 {
            say(&[b"SELECT", self.at.database.to_string().as_bytes()]);
        }
        for script in [USERS, PACED, COUNTED] {
            say(&[b"SCRIPT", b"LOAD", script.as_bytes()]);
        }
        stream.get_mut().send(&out)?;
        let mut replies = Vec::new();
        for _ in 0..commands {
            match resp::read(&mut stream)? {
                Reply::Error(error) => return Err(io::Error::other(error)),
                Reply::Text(text) => replies.push(text),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let mut hash = || replies.pop().ok_or(io::ErrorKind::InvalidData);
        let (counted, paced, users) = (hash()?, hash()?, hash()?);
        Ok(Connection { stream, users, paced, counted })
    }

    /// One round trip on a connection, made if need be.
    fn round_trip<T>(&mut self, work: impl FnOnce(&mut Connection) -> io::Result<T>) -> Result<T, Away> {
        if self.resting_until.is_some_and(|until| Instant::now() < until) {
            return Err(Away);
        }
        let result = self.connection.take().map_or_else(|| self.connect(), Ok).and_then(|mut connection| {
            connection.stream.get_mut().until = Instant::now() + self.timeout;
            let done = work(&mut connection)?;
            Ok((connection, done))
        });
        self.health.count(result.is_ok());
        match result {
            Ok((connection, done)) => {
                self.connection = Some(connection);
                (self.back_off, self.resting_until) = (BACK_OFF.0, None);
                Ok(done)
            }
            Err(error) => {
                tracing::debug!(store = self.name(), %error, "a round trip to the store of limits failed");
                self.resting_until = Some(Instant::now() + self.back_off);
                self.back_off = (self.back_off * 2).min(BACK_OFF.1);
                Err(Away)
            }
        }
    }
}

impl Store for Redis {
    fn answer(&mut self, asks: Vec<Ask>) {
        let mut out = Vec::new();
        let prefix = self.prefix.clone();
        let answers = self.round_trip(|connection| {
            for ask in &asks {
                ask.write(&prefix, connection, &mut out);
            }
            connection.stream.get_mut().send(&out)?;
            asks.iter().map(|_| grant(resp::read(&mut connection.stream)?)).collect::<io::Result<Vec<_>>>()
        });
        match answers {
            Ok(grants) => asks.into_iter().zip(grants).for_each(|(ask, grant)| (ask.done)(Ok(grant))),
            Err(Away) => asks.into_iter().for_each(|ask| (ask.done)(Err(Away))),
        }
    }

    fn look(&mut self) -> Result<u32, Away> {
        let (key, user) = (format!("{}users", self.prefix), self.user.clone());
        self.round_trip(|connection| {
            let mut out = Vec::new();
            let parts = ["EVALSHA", &connection.users, "1", &key, &user, USER_SECONDS];
            resp::write(&mut out, &parts.map(str::as_bytes));
            connection.stream.get_mut().send(&out)?;
            match resp::read(&mut connection.stream)? {
                Reply::Int(users) => Ok(u32::try_from(users).unwrap_or(1)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })
    }

    fn name(&self) -> String {
        format!("redis://{}:{}/{}", self.at.host, self.at.port, self.at.database)
    }
}

impl Ask {
    fn write(&self, prefix: &str, connection: &Connection, out: &mut Vec<u8>) {
        let key = format!("{prefix}{}", self.key);
        let [want, back, debt] = [self.want, self.back, self.debt].map(|n| n.to_string());
        match self.rule {
            Rule::Paced { interval, burst, ahead } => {
                let [interval, ahead] = [interval, ahead].map(micros);
                let burst = burst.to_string();
                let parts =
                    ["EVALSHA", &connection.paced, "1", &key, &interval, &burst, &ahead, &want, &back, &debt];
                resp::write(out, &parts.map(str::as_bytes));
            }
            Rule::Counted { part, parts, limit, keep, fraction } => {
                let [part, parts, limit, keep, fraction, back_part] =
                    [part, parts, limit, keep, fraction.max(1), self.back_part].map(|n| n.to_string());
                let parts = [
                    "EVALSHA",
                    &connection.counted,
                    "1",
                    &key,
                    &part,
                    &parts,
                    &limit,
                    &fraction,
                    &keep,
                    &want,
                    &back,
                    &debt,
                    &back_part,
                ];
                resp::write(out, &parts.map(str::as_bytes));
            }
        }
    }
}

/// Nanoseconds as microseconds with a fraction.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1000, nanos % 1000)
}

fn grant(reply: Reply) -> io::Result<Grant> {
    let Reply::Array(parts) = reply else {
        // A script that is gone is left there anew with the next connection.
        return Err(match reply {
            Reply::Error(error) => io::Error::other(error),
            _ => io::ErrorKind::InvalidData.into(),
        });
    };
    match parts.as_slice() {
        [Reply::Int(permits), Reply::Int(first), Reply::Int(room)] => Ok(Grant {
            permits: u64::try_from(*permits).unwrap_or(0),
            first: first.saturating_mul(1000),
            room: u64::try_from(*room).unwrap_or(0),
            journal: None,
        }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_server() {
        let url = RedisUrl::parse("redis://ann:p:w@db.example:7000/3").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.database), ("db.example", 7000, 3));
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("ann"), Some("p:w")));
        let url = RedisUrl::parse("valkey://:pw@[::1]").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.user.as_deref()), ("::1", 6379, None));
        assert_eq!(url.password.as_deref(), Some("pw"));
        for url in ["db:6379", "rediss://db", "redis://", "redis://db:x", "redis://db/a", "http://db"] {
            assert!(RedisUrl::parse(url).is_err(), "{url}");
        }
    }
}
