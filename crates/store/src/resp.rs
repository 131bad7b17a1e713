//! The protocol of Redis and Valkey (RESP2): commands out, replies in. Sans-io but for `Read`.

use std::io::{self, BufRead, Read};

/// Longest bulk string of a reply, in bytes.
const BULK_MAX: usize = 64 << 10;

/// Most elements of an array.
const ARRAY_MAX: usize = 64;

/// Longest line.
const LINE_MAX: u64 = 4 << 10;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A simple or bulk string.
    Text(String),
    /// An error of the server.
    Error(String),
    /// An integer.
    Int(i64),
    /// Nothing.
    Nil,
    /// Several.
    Array(Vec<Self>),
}

/// Writes a command.
pub(crate) fn write(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads a reply.
///
/// # Errors
/// Those of reading, and `InvalidData` when it is none, or larger than what is ever asked for.
pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Reply> {
    read_at(from, 0)
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_at(from: &mut impl BufRead, depth: u8) -> io::Result<Reply> {
    let mut line = Vec::new();
    from.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(if line.is_empty() {
            io::ErrorKind::UnexpectedEof.into()
        } else {
            wrong("a line without end")
        });
    };
    let Some((kind, rest)) = line.split_first() else { return Err(wrong("an empty line")) };
    let text = String::from_utf8_lossy(rest);
    let number = || text.parse::<i64>().map_err(|_| wrong("no number"));
    Ok(match kind {
        b'+' => Reply::Text(text.into_owned()),
        b'-' => Reply::Error(text.into_owned()),
        b':' => Reply::Int(number()?),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) if length > BULK_MAX => return Err(wrong("a string that is too long")),
            Ok(length) => {
                let mut bulk = vec![0; length + 2];
                from.read_exact(&mut bulk)?;
                let bulk = bulk.strip_suffix(b"\r\n").ok_or_else(|| wrong("a string without end"))?;
                Reply::Text(String::from_utf8_lossy(bulk).into_owned())
            }
        },
        b'*' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) if length > ARRAY_MAX || depth > 2 => return Err(wrong("an array that is too large")),
            Ok(length) => {
                Reply::Array((0..length).map(|_| read_at(from, depth + 1)).collect::<io::Result<_>>()?)
            }
        },
        _ => return Err(wrong("an unknown kind of reply")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_replies_are_resp2() {
        let mut out = Vec::new();
        write(&mut out, &[b"GET", b"a b"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n");
        let mut from: &[u8] =
            b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n*-1\r\n";
        let mut replies = Vec::new();
        while let Ok(reply) = read(&mut from) {
            replies.push(reply);
        }
        assert!(from.is_empty());
        let text = |text: &str| Reply::Text(text.into());
        assert_eq!(
            replies,
            [
                text("OK"),
                Reply::Error("ERR no".into()),
                Reply::Int(-7),
                text("a\r\n"),
                Reply::Nil,
                Reply::Array(vec![Reply::Int(1), Reply::Array(vec![text("")])]),
                Reply::Nil,
            ]
        );
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b"hello\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b"$999999999\r\n",
            b"*999999999\r\n",
            b"$3\r\nabcde\r\n",
            b"+no end",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert!(read(&mut { bytes }).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
