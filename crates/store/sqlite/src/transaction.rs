//! Writes inside one transaction of SQLite: each call's writes all or none, each write one revision.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tortie_facts::Revision;
use tortie_store::{TextWrite, WriteError, judge};

/// The writes of one call; what could not be turned into text has its error already.
pub(crate) type Call = Vec<Result<TextWrite, WriteError>>;

/// The results of one call.
pub(crate) type Results = Vec<Result<Revision, WriteError>>;

/// The revisions of a transaction that wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The first.
    pub(crate) first: u64,
    /// The last.
    pub(crate) last: u64,
}

/// Does the calls in one transaction. An error means that nothing was done.
pub(crate) fn run<'a>(
    connection: &mut Connection,
    calls: impl Iterator<Item = &'a Call>,
    now: i64,
) -> rusqlite::Result<(Vec<Results>, Option<Written>)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let start = revision(&transaction)?;
    let mut last = start;
    let mut results = Vec::new();
    for call in calls {
        results.push(one_call(&transaction, call, &mut last, now)?);
    }
    if last == start {
        transaction.rollback()?;
        return Ok((results, None));
    }
    transaction.commit()?;
    Ok((results, Some(Written { first: start + 1, last })))
}

/// The store's revision: that of the log's last row.
pub(crate) fn revision(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT max(revision) FROM log")?.query_row([], |row| {
        let last: Option<i64> = row.get(0)?;
        Ok(last.map_or(0, i64::cast_unsigned))
    })
}

fn one_call(connection: &Connection, call: &Call, last: &mut u64, now: i64) -> rusqlite::Result<Results> {
    let start = *last;
    // A single write is judged before it changes anything.
    let several = call.len() > 1;
    if several {
        connection.prepare_cached("SAVEPOINT call")?.execute([])?;
    }
    let mut results = Results::with_capacity(call.len());
    for write in call {
        let result = match write {
            Ok(write) => one_write(connection, write, *last + 1, now)?,
            Err(error) => Err(error.clone()),
        };
        let failed = result.is_err();
        results.push(result);
        if failed {
            if several {
                connection.prepare_cached("ROLLBACK TO call")?.execute([])?;
            }
            let failure = results.len() - 1;
            results[..failure].fill(Err(WriteError::NotTried));
            results.resize(call.len(), Err(WriteError::NotTried));
            *last = start;
            break;
        }
        *last += 1;
    }
    if several {
        connection.prepare_cached("RELEASE call")?.execute([])?;
    }
    Ok(results)
}

fn one_write(
    connection: &Connection,
    write: &TextWrite,
    revision: u64,
    now: i64,
) -> rusqlite::Result<Result<Revision, WriteError>> {
    let TextWrite { name, path, expect, value } = write;
    let found: Option<i64> = connection
        .prepare_cached("SELECT revision FROM kv WHERE path = ?1")?
        .query_row([path], |row| row.get(0))
        .optional()?;
    let found = found.map(|revision| Revision(revision.cast_unsigned()));
    if let Err(error) = judge(name, *expect, value.is_none(), found) {
        return Ok(Err(error));
    }
    let number = revision.cast_signed();
    match value {
        None => connection.prepare_cached("DELETE FROM kv WHERE path = ?1")?.execute([path])?,
        Some(value) if found.is_some() => connection
            .prepare_cached("UPDATE kv SET value = ?2, revision = ?3 WHERE path = ?1")?
            .execute((path, value, number))?,
        Some(value) => connection
            .prepare_cached("INSERT INTO kv (path, value, revision, created) VALUES (?1, ?2, ?3, ?3)")?
            .execute((path, value, number))?,
    };
    connection
        .prepare_cached("INSERT INTO log (revision, path, value, at) VALUES (?1, ?2, ?3, ?4)")?
        .execute((number, path, value, now))?;
    Ok(Ok(Revision(revision)))
}
