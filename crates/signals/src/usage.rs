//! Usage: requests by route, operation, consumer, plan and status, by hour and day.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rhumb_telemetry::signals::{Dimension, Name, OTHER, Totals};
use schemars::JsonSchema;
use serde::Serialize;

use crate::answer::round;
use crate::codec::{Reader, put, put_text};

/// Rows of an hour or a day, at most; what comes then is counted together.
pub(crate) const ROWS: usize = 4096;

/// What of usage is told apart, in the order of names of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The route.
    Route,
    /// Method and template: `GET /users/*`.
    Operation,
    /// The consumer; empty: nobody who is registered.
    Consumer,
    /// Its plan.
    Plan,
    /// The status.
    Status,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 5] = [Self::Route, Self::Operation, Self::Consumer, Self::Plan, Self::Status];

    /// The word of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Operation => "operation",
            Self::Consumer => "consumer",
            Self::Plan => "plan",
            Self::Status => "status",
        }
    }

    /// The column with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }

    fn of(self, name: &Name) -> String {
        match self {
            Self::Route => name.part(0).to_owned(),
            Self::Operation if name.part(1) == OTHER && name.part(2) == OTHER => OTHER.to_owned(),
            Self::Operation => format!("{} {}", name.part(2), name.part(1)).trim_end().to_owned(),
            Self::Consumer => name.part(3).to_owned(),
            Self::Plan => name.part(4).to_owned(),
            Self::Status => name.part(5).to_owned(),
        }
    }
}

/// What usage is asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The beginning, rounded down to an hour or a day. Unit: seconds since 1970.
    pub from: u64,
    /// The end, of which what is under way is part. Unit: seconds since 1970.
    pub to: u64,
    /// What is told apart; what is not here is added up.
    pub by: Vec<Column>,
    /// Only rows with these values.
    pub only: Vec<(Column, String)>,
    /// One row per hour, per day, or for all of the time.
    pub step: Step,
}

/// How time is told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Not at all.
    #[default]
    All,
    /// By hour. Hours are kept for eight days.
    Hour,
    /// By day (UTC). Days are kept for 400 days.
    Day,
}

impl Step {
    /// The step with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "all" => Self::All,
            "hour" => Self::Hour,
            "day" => Self::Day,
            _ => return None,
        })
    }
}

/// Usage of a time.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Usage {
    /// The beginning of what is told. Unit: seconds since 1970.
    pub from: u64,
    /// Its end. Unit: seconds since 1970.
    pub to: u64,
    /// By time, then by what is told apart.
    pub rows: Vec<Row>,
}

/// One row of usage. What was not asked to be told apart is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// When its hour or day began. Unit: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The route; empty: none took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Method and template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The consumer; empty: nobody who is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Its plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Requests.
    pub requests: u64,
    /// Failures of backends and of the proxy.
    pub errors: u64,
    /// Content of requests. Unit: bytes.
    pub bytes_in: u64,
    /// Content of responses. Unit: bytes.
    pub bytes_out: u64,
    /// How long they took on average.
    pub mean_ms: f64,
}

impl Usage {
    /// As a table of comma-separated values (RFC 4180).
    pub fn to_csv(&self) -> String {
        let mut out = String::new();
        let first = self.rows.first();
        let shown: Vec<_> = Column::ALL
            .into_iter()
            .filter(|column| first.is_some_and(|row| row.value(*column).is_some()))
            .collect();
        let has_time = first.is_some_and(|row| row.at.is_some());
        if has_time {
            out.push_str("at,");
        }
        for column in &shown {
            out.push_str(column.as_str());
            out.push(',');
        }
        out.push_str("requests,errors,bytes_in,bytes_out,mean_ms\r\n");
        for row in &self.rows {
            if has_time {
                write!(out, "{},", row.at.unwrap_or(0)).unwrap_or_default();
            }
            for column in &shown {
                field(&mut out, row.value(*column).unwrap_or_default());
                out.push(',');
            }
            let Row { requests, errors, bytes_in, bytes_out, mean_ms, .. } = row;
            write!(out, "{requests},{errors},{bytes_in},{bytes_out},{mean_ms}\r\n").unwrap_or_default();
        }
        out
    }
}

/// A field: in quotation marks where it has to be. What a spreadsheet would take for a formula gets an apostrophe.
fn field(out: &mut String, text: &str) {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t']);
    if !is_formula && !text.contains(['"', ',', '\r', '\n']) {
        out.push_str(text);
        return;
    }
    out.push('"');
    if is_formula {
        out.push('\'');
    }
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

impl Row {
    fn value(&self, column: Column) -> Option<&str> {
        match column {
            Column::Route => self.route.as_deref(),
            Column::Operation => self.operation.as_deref(),
            Column::Consumer => self.consumer.as_deref(),
            Column::Plan => self.plan.as_deref(),
            Column::Status => self.status.as_deref(),
        }
    }

    fn set(&mut self, column: Column, value: String) {
        *match column {
            Column::Route => &mut self.route,
            Column::Operation => &mut self.operation,
            Column::Consumer => &mut self.consumer,
            Column::Plan => &mut self.plan,
            Column::Status => &mut self.status,
        } = Some(value);
    }
}

/// What one row has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    requests: u64,
    errors: u64,
    bytes_in: u64,
    bytes_out: u64,
    nanos: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

/// Usage of an hour or a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book(BTreeMap<Name, Tally>);

impl Book {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, name: &Name, totals: &Totals) {
        let tally = Tally {
            requests: totals.count(),
            errors: totals.errors(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            nanos: totals.nanos,
        };
        self.add_tally(name, &tally);
    }

    fn add_tally(&mut self, name: &Name, tally: &Tally) {
        let other;
        let name = if self.0.len() >= ROWS && !self.0.contains_key(name) {
            other = Name::new(&vec![OTHER; Dimension::Usage.names()]);
            &other
        } else {
            name
        };
        self.0.entry(name.clone()).or_default().add(tally);
    }

    pub(crate) fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, tally)| self.add_tally(name, tally));
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * 64);
        for (name, tally) in &self.0 {
            put_text(&mut out, name.as_str());
            for number in [tally.requests, tally.errors, tally.bytes_in, tally.bytes_out, tally.nanos] {
                put(&mut out, number);
            }
        }
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut book = Self::default();
        let mut reader = Reader(bytes);
        while !reader.is_empty() {
            let row = (|| {
                let name = Name::from_text(reader.text()?);
                let mut number = || reader.number();
                let tally = Tally {
                    requests: number()?,
                    errors: number()?,
                    bytes_in: number()?,
                    bytes_out: number()?,
                    nanos: number()?,
                };
                Some((name, tally))
            })();
            let Some((name, tally)) = row else { break };
            book.0.insert(name, tally);
        }
        book
    }
}

/// Rows by time and by the values of what is told apart.
#[derive(Default)]
pub(crate) struct Rows(BTreeMap<(Option<u64>, Vec<String>), Tally>);

impl Rows {
    pub(crate) fn add(&mut self, query: &Query, at: Option<u64>, book: &Book) {
        for (name, tally) in &book.0 {
            if query.only.iter().all(|(column, value)| column.of(name) == *value) {
                let key = query.by.iter().map(|column| column.of(name)).collect();
                self.0.entry((at, key)).or_default().add(tally);
            }
        }
    }

    #[allow(clippy::cast_precision_loss)] // a mean
    pub(crate) fn into_rows(self, query: &Query) -> Vec<Row> {
        let row = |((at, values), tally): ((Option<u64>, Vec<String>), Tally)| {
            let mut row = Row {
                at,
                requests: tally.requests,
                errors: tally.errors,
                bytes_in: tally.bytes_in,
                bytes_out: tally.bytes_out,
                mean_ms: round(tally.nanos as f64 / 1e6 / tally.requests.max(1) as f64),
                ..Row::default()
            };
            query.by.iter().zip(values).for_each(|(column, value)| row.set(*column, value));
            row
        };
        self.0.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_read_as_it_was_written_and_bounded() {
        let mut book = Book::default();
        let mut totals = Totals { nanos: 2_000_000, bytes_in: 1, bytes_out: 2, ..Totals::default() };
        totals.outcomes[0] = 1;
        for number in 0..5000 {
            let name = Name::new(&["r", "/x", "GET", &format!("c{number}"), "gold", "200"]);
            book.add(&name, &totals);
        }
        assert_eq!(book.0.len(), ROWS + 1);
        assert_eq!(Book::read(&book.write()), book);
        let mut rows = Rows::default();
        let query = Query { by: vec![Column::Operation, Column::Plan], ..Query::default() };
        rows.add(&query, None, &book);
        let usage = Usage { from: 0, to: 1, rows: rows.into_rows(&query) };
        assert_eq!(usage.rows.iter().map(|row| row.requests).sum::<u64>(), 5000);
        let csv = usage.to_csv();
        assert!(csv.starts_with("operation,plan,requests,errors,bytes_in,bytes_out,mean_ms\r\nGET /x,gold,4096,0,4096,8192,2\r\n"), "{csv}");
    }

    #[test]
    fn values_cannot_leave_their_field() {
        let mut out = String::new();
        field(&mut out, "=cmd(\"x\"),1");
        assert_eq!(out, "\"'=cmd(\"\"x\"\"),1\"");
    }
}
