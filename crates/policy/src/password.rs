//! Hashes of passwords, and the threads that check them: what takes tens of milliseconds by design must not hold up the
//! other requests of a worker.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use blowfish::Blowfish;
use rhumb_base::base64;

/// Threads that check passwords.
pub const THREADS: usize = 2;

/// Passwords that wait to be checked; more are refused. A client that guesses cannot make the rest wait for long.
pub const WAITING_LIMIT: usize = 64;

/// The most memory that one hash may ask for. **Unit**: KiB.
pub const MEMORY_LIMIT: u32 = 64 << 10;

/// The most passes of argon2 that one hash may ask for.
pub const PASSES_LIMIT: u32 = 16;

/// The highest cost of bcrypt: about a second.
pub const COST_LIMIT: u32 = 14;

/// Longest password, in bytes.
pub const PASSWORD_MAX: usize = 1024;

/// A hash of a password: argon2 (RFC 9106) as PHC text, or bcrypt as htpasswd writes it.
#[derive(Clone)]
pub(crate) struct PasswordHash {
    text: Arc<str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Argon2 { algorithm: Algorithm, version: Version, params: Params, salt: Arc<[u8]>, hash: Arc<[u8]> },
    Bcrypt { cost: u32, salt: [u8; 16], hash: [u8; BCRYPT_HASH] },
}

/// Octets of a hash of bcrypt; the last of the 24 that are worked out is not written.
const BCRYPT_HASH: usize = 23;

/// Octets of a password that bcrypt looks at, with the zero behind it.
const BCRYPT_PASSWORD: usize = 72;

/// The digits of bcrypt's base64.
const BCRYPT_DIGITS: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl PasswordHash {
    /// Reads one; the reason when it cannot be used.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let kind = if text.starts_with("$argon2") {
            argon2_of(text).ok_or("is no argon2 hash")?
        } else if ["$2a$", "$2b$", "$2y$"].iter().any(|begin| text.starts_with(begin)) {
            bcrypt_of(text).ok_or("is no bcrypt hash")?
        } else {
            return Err("is neither argon2 (`$argon2id$…`) nor bcrypt (`$2y$…`), which `htpasswd -B` makes"
                .to_owned());
        };
        match &kind {
            Kind::Argon2 { params, .. }
                if params.m_cost() > MEMORY_LIMIT || params.t_cost() > PASSES_LIMIT =>
            {
                let (memory, passes) = (params.m_cost(), params.t_cost());
                Err(format!(
                    "costs {memory} KiB and {passes} passes, more than {MEMORY_LIMIT} and {PASSES_LIMIT}"
                ))
            }
            Kind::Bcrypt { cost, .. } if *cost > COST_LIMIT => {
                Err(format!("has cost {cost}, more than {COST_LIMIT}"))
            }
            _ => Ok(Self { text: text.into(), kind }),
        }
    }

    /// What distinguishes it from every other one.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Takes long, on purpose.
    fn fits(&self, password: &[u8]) -> bool {
        match &self.kind {
            Kind::Argon2 { algorithm, version, params, salt, hash } => {
                let mut own = vec![0; hash.len()];
                let argon2 = Argon2::new(*algorithm, *version, params.clone());
                let is_made = argon2.hash_password_into(password, salt, &mut own).is_ok();
                is_made && verify_slices_are_equal(&own, hash).is_ok()
            }
            Kind::Bcrypt { cost, salt, hash } => {
                verify_slices_are_equal(&bcrypt(*cost, salt, password), hash).is_ok()
            }
        }
    }

    /// Checks a password on another thread. `None`: too many wait already.
    pub(crate) fn check(&self, password: &[u8]) -> Option<Checking> {
        let answer = Arc::new(Mutex::new(Answer::default()));
        let job = Job { hash: self.clone(), password: password.into(), answer: Arc::clone(&answer) };
        let queue = queue()?;
        match queue.try_send(job) {
            Ok(()) => Some(Checking(answer)),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

/// Reads `$argon2id$v=19$m=65536,t=3,p=4$SALT$HASH` (the PHC string format).
fn argon2_of(text: &str) -> Option<Kind> {
    let mut parts = text.split('$').skip(1);
    let algorithm = match parts.next()? {
        "argon2id" => Algorithm::Argon2id,
        "argon2i" => Algorithm::Argon2i,
        "argon2d" => Algorithm::Argon2d,
        _ => return None,
    };
    let mut next = parts.next()?;
    let version = match next.strip_prefix("v=") {
        // Without a version it is the first one.
        None => Version::V0x10,
        Some(number) => {
            next = parts.next()?;
            Version::try_from(number.parse::<u32>().ok()?).ok()?
        }
    };
    let mut costs = next.split(',').map(|cost| cost.split_once('='));
    let mut cost = |wanted: &str| {
        let (name, number) = costs.next()??;
        number.parse::<u32>().ok().filter(|_| name == wanted)
    };
    let (memory, passes, lanes) = (cost("m")?, cost("t")?, cost("p")?);
    let salt = base64::decode_bare(parts.next()?.as_bytes())?;
    let hash = base64::decode_bare(parts.next()?.as_bytes())?;
    let is_whole = parts.next().is_none() && costs.next().is_none();
    let is_sized = salt.len() >= argon2::MIN_SALT_LEN && (16..=HASH_MAX).contains(&hash.len());
    let params = Params::new(memory, passes, lanes, Some(hash.len())).ok()?;
    let (salt, hash) = (salt.into(), hash.into());
    (is_whole && is_sized).then_some(Kind::Argon2 { algorithm, version, params, salt, hash })
}

/// Longest hash of argon2, in octets.
const HASH_MAX: usize = 128;

/// Reads `$2y$12$` with 22 digits of salt and 31 of hash.
fn bcrypt_of(text: &str) -> Option<Kind> {
    let (cost, rest) = text.get(4..)?.split_once('$')?;
    let cost = cost.parse().ok().filter(|cost| (4..=31).contains(cost) && rest.len() == 53)?;
    let (salt, hash) = rest.split_at_checked(22)?;
    // The last digit of each has bits to spare, which some implementations leave as they come.
    let decode = |text: &str| {
        let padded = format!("{text}..");
        let whole = padded.get(..text.len().next_multiple_of(4))?;
        base64::decode_digits(BCRYPT_DIGITS, whole.as_bytes())
    };
    let salt = decode(salt)?.get(..16)?.try_into().ok()?;
    let hash = decode(hash)?.get(..BCRYPT_HASH)?.try_into().ok()?;
    Some(Kind::Bcrypt { cost, salt, hash })
}

/// bcrypt (Provos and Mazières, "A Future-Adaptable Password Scheme", 1999).
fn bcrypt(cost: u32, salt: &[u8; 16], password: &[u8]) -> [u8; BCRYPT_HASH] {
    let mut key = password.to_vec();
    key.push(0);
    key.truncate(BCRYPT_PASSWORD);
    let mut state = Blowfish::bc_init_state();
    state.salted_expand_key(salt, &key);
    for _ in 0..1u64 << cost {
        state.bc_expand_key(&key);
        state.bc_expand_key(salt);
    }
    let mut hash = [0; BCRYPT_HASH];
    for (block, out) in b"OrpheanBeholderScryDoubt".chunks_exact(8).zip(hash.chunks_mut(8)) {
        let block = block.iter().fold(0u64, |block, &byte| block << 8 | u64::from(byte));
        let halves = |block: u64| [(block >> 32) as u32, (block & 0xffff_ffff) as u32];
        let [left, right] = (0..64).fold(halves(block), |block, _| state.bc_encrypt(block));
        let block = (u64::from(left) << 32 | u64::from(right)).to_be_bytes();
        out.iter_mut().zip(block).for_each(|(out, byte)| *out = byte);
    }
    hash
}

#[derive(Default)]
struct Answer {
    fits: Option<bool>,
    waker: Option<Waker>,
}

struct Job {
    hash: PasswordHash,
    password: Box<[u8]>,
    answer: Arc<Mutex<Answer>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // A job that was never done has an answer too.
        lock(&self.answer).fits.get_or_insert(false);
        let waker = lock(&self.answer).waker.take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Whether a password fits, when that is known.
pub(crate) struct Checking(Arc<Mutex<Answer>>);

impl Future for Checking {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut answer = lock(&self.0);
        match answer.fits {
            Some(fits) => Poll::Ready(fits),
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to the threads, which begin with the first password.
fn queue() -> Option<&'static SyncSender<Job>> {
    static QUEUE: OnceLock<Option<SyncSender<Job>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (to, from) = sync_channel(WAITING_LIMIT);
        let from = Arc::new(Mutex::new(from));
        let start = |number: usize| {
            let from = Arc::clone(&from);
            std::thread::Builder::new().name(format!("passwords-{number}")).spawn(move || work(&from)).is_ok()
        };
        let started = (0..THREADS).filter(|&number| start(number)).count();
        (started > 0).then_some(to)
    });
    queue.as_ref()
}

fn work(from: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = lock(from).recv() else { return };
        let fits = job.hash.fits(&job.password);
        lock(&job.answer).fits = Some(fits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by other implementations, of the password `hunter2`.
    const HASHES: &[&str] = &[
        "$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
        "$2y$04$G3eaL5v9Di.p2c2C7XHoduCRbpsdrZeDZzdAGJL7hHrPmOq8Fmh0i",
        "$argon2id$v=19$m=256,t=1,p=1$eP6exrWDHOYqJCv3ajmWOQ$FLjIMcvNFQhp5hR0Lzf85FNScUwgyCaY59sqdo33MCc",
        "$argon2i$v=19$m=256,t=1,p=1$sbBv/1tq4T96J5VItJE25A$Odrn9l11fqfHvSxcdkrttvQftH1RKkmItVUKYX7fS5I",
        "$argon2d$v=19$m=256,t=1,p=1$2PddMEazhrSc/Yj2kCXzcQ$hlnOK2iyxjfBRLakL2Gb7XAbwkoE7/SKQx8pLy06/WA",
    ];

    fn wait(checking: Checking) -> bool {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let (mut cx, mut checking) = (Context::from_waker(&waker), std::pin::pin!(checking));
        loop {
            match checking.as_mut().poll(&mut cx) {
                Poll::Ready(fits) => return fits,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[test]
    fn passwords_are_checked_elsewhere() {
        for text in HASHES {
            let hash = PasswordHash::read(text).unwrap();
            assert!(wait(hash.check(b"hunter2").unwrap()), "{text}");
            for wrong in ["hunter3", "hunter2 ", ""] {
                assert!(!wait(hash.check(wrong.as_bytes()).unwrap()), "{text}");
            }
        }
        let hash =
            PasswordHash::read("$2b$05$2ygLABcwBBRpUbUC6RXuE.shuiFG5W1OPi9.K13jSv4ograZvx8Em").unwrap();
        assert!(wait(hash.check("p\u{e4}ss".as_bytes()).unwrap()));
    }

    #[test]
    fn hashes_that_are_weak_or_too_dear_are_refused() {
        for text in [
            "hunter2",
            "$apr1$ZjTqBB3f$IF9gdYAGlMrs2fuINjHsz.",
            "{SHA}y/2sYAj5yrQIN4TL0YdPdmGNKpc=",
            "$2b$31$G3eaL5v9Di.p2c2C7XHoduCRbpsdrZeDZzdAGJL7hHrPmOq8Fmh0i",
            "$2b$04$short",
            "$argon2id$v=19$m=1048576,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$AAAA",
            "$argon2id$v=19$m=256,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg",
            "$argon2id$v=19$m=256,t=1$MDEyMzQ1Njc4OWFiY2RlZg$FLjIMcvNFQhp5hR0Lzf85FNScUwgyCaY59sqdo33MCc",
            "$argon2id$v=19$m=256,t=1,p=1$AAAA$FLjIMcvNFQhp5hR0Lzf85FNScUwgyCaY59sqdo33MCc",
            "$argon2x$v=19$m=256,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$AAAA",
        ] {
            assert!(PasswordHash::read(text).is_err(), "{text}");
        }
    }
}
