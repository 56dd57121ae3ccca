//! What keeps the file small: trimming the change log, moving the write-ahead log into the file.
//!
//! Done by a writer after its call was answered, seldom, and never twice for the same reason. Failing is harmless.

use rusqlite::{Connection, TransactionBehavior};

use crate::fault::Fault;
use crate::store::Shared;
use crate::transaction::Written;

/// The log is trimmed each time that its revision passes a multiple of this.
const TRIM_EACH: u64 = 512;

/// How many rows one transaction trims: it must not keep other writers waiting.
const TRIM_PART: i64 = 2048;

/// Pages of the write-ahead log from which it is moved into the file.
pub(crate) const WAL_PAGES: u32 = 1000;

/// Pages from which no writer may add more until all are moved.
const WAL_PAGES_AT_MOST: u32 = 4 * WAL_PAGES;

const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Trims and checkpoints if it is time to.
pub(crate) fn after(shared: &Shared, written: Written, now: i64) {
    if written.last / TRIM_EACH != written.first.saturating_sub(1) / TRIM_EACH
        && let Err(fault) = trim_old(shared, written.last, now)
    {
        tracing::debug!(?fault, "the change log was not trimmed");
    }
    if shared.checkpoint_due()
        && let Err(fault) = checkpoint(shared)
    {
        tracing::debug!(?fault, "no checkpoint");
    }
}

/// Trims by count and by age.
fn trim_old(shared: &Shared, last: u64, now: i64) -> Result<(), Fault> {
    let too_many = last.saturating_sub(shared.keep_changes).cast_signed();
    let cut = now.saturating_sub(i64::try_from(shared.keep_for.as_secs()).unwrap_or(i64::MAX));
    // Old rows are the first ones, so this reads little more than what is deleted next.
    let young: Option<i64> = shared.pool.with(|connection| {
        connection
            .prepare_cached(
                "SELECT min(revision) FROM (SELECT revision FROM log WHERE at >= ?1 ORDER BY revision LIMIT 1)",
            )?
            .query_row([cut], |row| row.get(0))
    })?;
    let too_old = young.unwrap_or(i64::MAX).saturating_sub(1);
    trim(shared, too_many.max(too_old))
}

/// Deletes the log's rows up to `upto`, but never the last: it is the store's revision.
pub(crate) fn trim(shared: &Shared, upto: i64) -> Result<(), Fault> {
    loop {
        let turn = shared.turns.take(shared.patience)?;
        let left = shared.pool.with(|connection| trim_part(connection, upto))?;
        drop(turn);
        if !left {
            return Ok(());
        }
    }
}

/// Deletes one part; whether there is more.
fn trim_part(connection: &mut Connection, upto: i64) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (first, last) = crate::read::bounds(&transaction)?;
    let upto = upto.min(last.cast_signed() - 1);
    let part = upto.min(first.cast_signed().saturating_add(TRIM_PART - 1));
    let deleted = transaction.prepare_cached("DELETE FROM log WHERE revision <= ?1")?.execute([part])?;
    transaction.commit()?;
    Ok(deleted > 0 && part < upto)
}

/// Moves what can be moved without waiting for readers.
///
/// The write-ahead log starts anew once all of it was moved and nothing was added meanwhile. So the bulk is moved while
/// others write; if that was in vain often enough, the rest is moved in a turn of writing.
fn checkpoint(shared: &Shared) -> Result<(), Fault> {
    let passive = || shared.pool.with(|connection| connection.query_row(CHECKPOINT, [], |_| Ok(())));
    passive()?;
    if shared.pool.wal_pages() < WAL_PAGES_AT_MOST {
        return Ok(());
    }
    let turn = shared.turns.take(shared.patience)?;
    let result = passive();
    drop(turn);
    result
}
