//! Reads: one key, a consistent listing, the changes behind a revision.

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

/// The rows in these spans and the store's revision at that moment.
pub(crate) fn list(connection: &mut Connection, spans: &[Span]) -> rusqlite::Result<(Vec<Row>, Revision)> {
    let transaction = connection.transaction()?;
    let now = Revision(revision(&transaction)?);
    let mut found = Vec::new();
    {
        let mut query = transaction
            .prepare_cached("SELECT path, value, revision FROM kv WHERE path >= ?1 AND path < ?2 ORDER BY path")?;
        for Span { start, end } in spans {
            let mut rows = query.query((start, end))?;
            while let Some(row) = rows.next()? {
                found.push(Row::read(row.get_ref(0)?.as_str()?, Some(row.get_ref(1)?.as_str()?), row.get(2)?));
            }
        }
    }
    transaction.commit()?;
    Ok((found, now))
}

/// Sorts what can be read from what can't. Each text is given back as soon as it is read: the largest listing is what
/// decides how much memory a node ever needs.
pub(crate) fn listing(rows: Vec<Row>, revision: Revision) -> Listing {
    let mut listing = Listing { entries: Vec::with_capacity(rows.len()), invalid: Vec::new(), revision };
    for row in rows {
        match row.decode() {
            Ok(entry) => listing.entries.push(entry),
            Err(invalid) => listing.invalid.push(invalid),
        }
    }
    listing
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
