//! What a client or a backend may say wrongly, and proof of what the proxy passed on: a recording peer on one side,
//! raw sockets on the other, driven in turns by one thread (testkit's stage).

mod requests;
mod responses;

use rhumb_testkit::message::{ADDED_TO_REQUESTS, Kind, Message, latin};
use rhumb_testkit::stage::{Act, Stage};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a row may take: long for a busy machine, short enough that a table of wrong rows still ends.
const LIMIT: Duration = Duration::from_secs(5);

/// One request of the table, or several on one connection.
struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    /// The client ends its direction after the bytes.
    finish: bool,
    expect: Expect,
}

/// What must come of it. Requests are written as [`Message::canonical`] does, without what the proxy adds.
#[derive(Debug, Clone)]
enum Expect {
    /// One of these statuses, then closed; not one byte reached the backend.
    Refused(&'static [u16]),
    /// The same, or closed without an answer.
    Dropped(&'static [u16]),
    /// One of these statuses from the proxy itself; not one byte reached the backend; the connection may go on.
    Local(&'static [u16]),
    /// The backend saw exactly these requests, and each was answered with 200.
    Forwarded(Vec<String>),
    /// The backend saw exactly these, then the client was refused with one of these statuses and closed.
    Then(Vec<String>, &'static [u16]),
    /// No complete request reached the backend. If the start of one did, its connection was closed. The client got
    /// one of these statuses or a close.
    Cut(&'static [u16]),
    /// Any of these is right.
    Any(Vec<Self>),
}

/// Everything the stage saw of one row.
struct Outcome {
    /// Complete requests, canonical.
    requests: Vec<String>,
    /// Bytes that are no complete request: garbage, or a start; with whether their connection was closed.
    rest: Vec<(String, bool)>,
    /// Statuses of the client's responses; the error of the strict reader.
    statuses: Result<Vec<u16>, String>,
    /// Bytes after the last response.
    extra: String,
    closed: bool,
}

const CLEAN: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: sentinel.test\r\n\r\n";

/// Plays a row on a proxy; afterwards a clean request must be served and be alone: on the same connection where the
/// proxy left it open after an answer of its own, and on another one.
fn play(stage: &mut Stage, proxy: SocketAddr, row: &Row) -> Result<(), String> {
    stage.clear();
    let outcome = perform(stage, proxy, &row.bytes, row.finish, |statuses| enough(&row.expect, statuses));
    judge(&row.expect, &outcome).map_err(|why| format!("{}: {why}", row.name))?;
    if outcome.requests.is_empty() && !outcome.closed {
        stage.send(0, CLEAN);
        stage.run(LIMIT, |stage| {
            stage.fronts[0].ended().is_some()
                || stage.fronts[0].responses().is_ok_and(|(all, _)| all.len() > 1)
        });
        stage.settle();
        let answers =
            stage.fronts[0].responses().map_or(0, |(all, rest)| if rest.is_empty() { all.len() } else { 0 });
        let requests: Vec<&str> =
            stage.upstreams.iter().flat_map(|up| &up.requests).map(Message::target).collect();
        let closed = stage.fronts[0].ended().is_some() && answers == 1 && requests.is_empty();
        if !closed && (answers != 2 || requests != ["/sentinel"]) {
            return Err(format!(
                "{}: the next request on the connection: backend saw {requests:?}, client {:?}",
                row.name,
                latin(stage.fronts[0].bytes())
            ));
        }
    }
    stage.clear();
    let clean = perform(stage, proxy, CLEAN, false, |statuses| !statuses.is_empty());
    let expected = Expect::Forwarded(vec!["GET /sentinel HTTP/1.1|host: sentinel.test".into()]);
    judge(&expected, &clean).map_err(|why| format!("{}: the clean request after it: {why}", row.name))
}

/// Whether these final statuses end the row; otherwise only a close does.
fn enough(expect: &Expect, statuses: &[u16]) -> bool {
    match expect {
        Expect::Forwarded(requests) => {
            statuses.len() >= requests.len() && statuses.iter().all(|status| *status == 200)
        }
        Expect::Local(allowed) => statuses.first().is_some_and(|status| allowed.contains(status)),
        Expect::Refused(_) | Expect::Dropped(_) | Expect::Then(..) | Expect::Cut(_) => false,
        Expect::Any(all) => all.iter().any(|one| enough(one, statuses)),
    }
}

fn perform(
    stage: &mut Stage,
    proxy: SocketAddr,
    bytes: &[u8],
    finish: bool,
    enough: impl Fn(&[u16]) -> bool,
) -> Outcome {
    let front = stage.connect(proxy);
    stage.send(front, bytes);
    if finish {
        stage.then(front, Act::Finish);
    }
    let to_head = bytes.starts_with(b"HEAD ");
    stage.run(LIMIT, |stage| {
        let front = &stage.fronts[front];
        front.ended().is_some() || statuses(front.bytes(), to_head, false).is_ok_and(|(all, _)| enough(&all))
    });
    stage.settle();
    // A request that was begun and given up: its connection is closed a moment after the client heard of it.
    stage.run(LIMIT, |stage| {
        stage.upstreams.iter().all(|up| up.rest().is_empty() || up.garbage.is_some() || up.ended().is_some())
    });
    let front = &stage.fronts[front];
    let (statuses, extra) = match statuses(front.bytes(), to_head, front.ended().is_some()) {
        Ok((statuses, extra)) => (Ok(statuses), extra),
        Err(why) => (Err(why), String::new()),
    };
    let ups = stage.upstreams.iter();
    Outcome {
        requests: ups
            .clone()
            .flat_map(|up| &up.requests)
            .map(|message| message.canonical(ADDED_TO_REQUESTS))
            .collect(),
        rest: ups
            .filter(|up| !up.rest().is_empty())
            .map(|up| (latin(up.rest()), up.ended().is_some()))
            .collect(),
        statuses,
        extra,
        closed: front.ended().is_some(),
    }
}

/// Final statuses among the bytes, and what is left over.
fn statuses(bytes: &[u8], to_head: bool, ended: bool) -> Result<(Vec<u16>, String), String> {
    let kind = if to_head { Kind::ResponseToHead } else { Kind::Response };
    let (messages, rest) = Message::read_all(bytes, kind, ended)?;
    Ok((messages.iter().map(Message::status).filter(|status| *status >= 200).collect(), latin(rest)))
}

fn judge(expect: &Expect, outcome: &Outcome) -> Result<(), String> {
    let wrong = |what: &str| {
        let Outcome { requests, rest, statuses, extra, closed } = outcome;
        Err(format!(
            "{what}\n    backend saw {requests:?}, beyond that {rest:?}\n    client saw {statuses:?}, beyond that {extra:?}, closed: {closed}"
        ))
    };
    let silent = outcome.requests.is_empty() && outcome.rest.is_empty();
    let statuses = outcome.statuses.as_deref().unwrap_or(&[0]);
    match expect {
        Expect::Any(all) => {
            let whys: Vec<String> = all.iter().filter_map(|one| judge(one, outcome).err()).collect();
            if whys.len() == all.len() { Err(whys.join("\n  and ")) } else { Ok(()) }
        }
        _ if !outcome.extra.is_empty() => wrong("the client's last response is not complete"),
        Expect::Refused(_) | Expect::Dropped(_) | Expect::Local(_) if !silent => {
            wrong("must not reach the backend")
        }
        Expect::Refused(allowed) | Expect::Dropped(allowed) | Expect::Local(allowed) => {
            let answered = matches!(statuses, [status] if allowed.contains(status));
            let dropped = matches!(expect, Expect::Dropped(_)) && statuses.is_empty();
            if !answered && !dropped {
                return wrong(&format!("expected {allowed:?}"));
            }
            if outcome.closed || matches!(expect, Expect::Local(_)) {
                Ok(())
            } else {
                wrong("must be closed")
            }
        }
        Expect::Forwarded(requests) => {
            if outcome.requests != *requests || !outcome.rest.is_empty() {
                return wrong(&format!("expected {requests:?}"));
            }
            if statuses.len() == requests.len() && statuses.iter().all(|status| *status == 200) {
                Ok(())
            } else {
                wrong("each must be answered with 200")
            }
        }
        Expect::Then(requests, allowed) => {
            if outcome.requests != *requests || !outcome.rest.is_empty() {
                return wrong(&format!("expected {requests:?}"));
            }
            let (last, before) = statuses.split_last().unwrap_or((&0, &[]));
            let good = before.len() == requests.len()
                && before.iter().all(|status| *status == 200)
                && allowed.contains(last);
            if good && outcome.closed {
                Ok(())
            } else {
                wrong(&format!("expected 200s, then {allowed:?} and a close"))
            }
        }
        Expect::Cut(allowed) => {
            if !outcome.requests.is_empty() || outcome.rest.iter().any(|(_, closed)| !closed) {
                return wrong("no complete request may reach the backend, and a started one must be cut off");
            }
            let answered = statuses.is_empty() || matches!(statuses, [status] if allowed.contains(status));
            if answered && outcome.closed {
                Ok(())
            } else {
                wrong(&format!("expected {allowed:?} or nothing, and a close"))
            }
        }
    }
}
