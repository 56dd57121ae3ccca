//! Reads: one key, a consistent listing, the changes behind a revision.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};
use tortie_facts::Revision;
use tortie_store::{Entry, InvalidEntry, Listing, Span, decode};

use crate::transaction::revision;

/// A text with its key's text and revision.
pub(crate) struct Row {
    /// The key's text.
    pub(crate) path: String,
    /// The value's text; `None` in the log: deleted.
    pub(crate) value: Option<String>,
    /// The revision.
    pub(crate) revision: Revision,
}

impl Row {
    fn read(path: &str, value: Option<&str>, revision: i64) -> Row {
        Row { path: path.to_owned(), value: value.map(str::to_owned), revision: Revision(revision.cast_unsigned()) }
    }

    /// The fact in a row of `kv`.
    pub(crate) fn decode(&self) -> Result<Entry, InvalidEntry> {
        decode(&self.path, self.value.as_deref().unwrap_or_default(), self.revision)
    }
}

/// What is under a key.
pub(crate) fn get(connection: &Connection, path: &str) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached("SELECT value, revision FROM kv WHERE path = ?1")?
        .query_row([path], |row| Ok(Row::read(path, Some(row.get_ref(0)?.as_str()?), row.get(1)?)))
        .optional()
}

/// How large the texts of a part of a listing are, bytes: a part ends with the one that reaches this.
const PART: usize = 128 << 10;

/// Cache of a connection, in KiB with a minus: SQLite's default, and while all is read.
const CACHE: i32 = -2000;
const SCAN_CACHE: i32 = -128;

/// What is put together of a listing, and who gets it.
struct Parts<'e> {
    each: &'e mut dyn FnMut(Listing),
    part: Listing,
    size: usize,
    given: bool,
}

impl Parts<'_> {
    /// The next fact, or what can't be read.
    fn take(&mut self, path: &str, value: &str, revision: Revision) {
        match decode(path, value, revision) {
            Ok(entry) => self.part.entries.push(entry),
            Err(invalid) => self.part.invalid.push(invalid),
        }
        self.size += path.len() + value.len();
        if self.size >= PART {
            self.give();
        }
    }

    fn give(&mut self) {
        let revision = self.part.revision;
        (self.each)(std::mem::replace(&mut self.part, Listing { revision, ..Listing::default() }));
        (self.size, self.given) = (0, true);
    }

    /// Gives what is left; even an empty listing has a part.
    fn end(mut self) {
        if self.size > 0 || !self.given {
            self.give();
        }
    }
}

/// What is in these spans, in parts; all of them show the store at one moment. After `patience` the rest is read at once
/// before it is given: as long as this reads, the write-ahead log only grows.
pub(crate) fn list_in_parts(
    connection: &mut Connection,
    spans: &[Span],
    patience: Duration,
    each: &mut dyn FnMut(Listing),
) -> rusqlite::Result<()> {
    // Each page is needed once.
    connection.pragma_update(None, "cache_size", SCAN_CACHE)?;
    let given = give_parts(connection, spans, patience, each);
    connection.pragma_update(None, "cache_size", CACHE)?;
    given
}

fn give_parts(
    connection: &mut Connection,
    spans: &[Span],
    patience: Duration,
    each: &mut dyn FnMut(Listing),
) -> rusqlite::Result<()> {
    let begun = Instant::now();
    let transaction = connection.transaction()?;
    let revision = Revision(revision(&transaction)?);
    let mut parts = Parts { each, part: Listing { revision, ..Listing::default() }, size: 0, given: false };
    let mut late = Vec::new();
    {
        let mut query = transaction
            .prepare_cached("SELECT path, value, revision FROM kv WHERE path >= ?1 AND path < ?2 ORDER BY path")?;
        for Span { start, end } in spans {
            let mut rows = query.query((start, end))?;
            while let Some(row) = rows.next()? {
                let (path, value, revision) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, row.get(2)?);
                if begun.elapsed() >= patience {
                    late.push(Row::read(path, Some(value), revision));
                } else {
                    parts.take(path, value, Revision(revision.cast_unsigned()));
                }
            }
        }
    }
    transaction.commit()?;
    for Row { path, value, revision } in late {
        parts.take(&path, value.as_deref().unwrap_or_default(), revision);
    }
    parts.end();
    Ok(())
}

/// The first and the last revision in the log; zeros if it is empty.
pub(crate) fn bounds(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection.prepare_cached("SELECT (SELECT min(revision) FROM log), (SELECT max(revision) FROM log)")?.query_row(
        [],
        |row| {
            let end =
                |at| -> rusqlite::Result<u64> { Ok(row.get::<_, Option<i64>>(at)?.map_or(0, i64::cast_unsigned)) };
            Ok((end(0)?, end(1)?))
        },
    )
}

/// A part of the log.
pub(crate) struct Part {
    /// The revision of its first row, whether in a span or not; `None` if there is no row.
    pub(crate) first: Option<u64>,
    /// The revision of its last row.
    pub(crate) last: u64,
    /// The rows in the spans.
    pub(crate) rows: Vec<Row>,
}

/// The changes behind `seen`, at most `limit` of them.
pub(crate) fn changes(connection: &Connection, spans: &[Span], seen: u64, limit: u32) -> rusqlite::Result<Part> {
    let mut query = connection
        .prepare_cached("SELECT revision, path, value FROM log WHERE revision > ?1 ORDER BY revision LIMIT ?2")?;
    let mut rows = query.query((seen.cast_signed(), limit))?;
    let mut part = Part { first: None, last: seen, rows: Vec::new() };
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        part.last = number.cast_unsigned();
        part.first.get_or_insert(part.last);
        let path = row.get_ref(1)?.as_str()?;
        if spans.iter().any(|span| span.covers(path)) {
            part.rows.push(Row::read(path, row.get_ref(2)?.as_str_or_null()?, number));
        }
    }
    Ok(part)
}
