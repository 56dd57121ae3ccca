//! Reads: one key, and a consistent listing in pages.

use std::sync::Arc;

use tokio::task::JoinSet;
use tortie_facts::Revision;
use tortie_store::{Entry, InvalidEntry, Listing, Span, StoreError, decode};

use crate::client::Client;
use crate::fault::Fault;
use crate::proto;

/// Keys of one page of a listing: large enough that the round trips don't count, small enough that no page is a burden.
const PAGE: i64 = 1000;
/// How often a listing is begun anew when a compaction takes its revision away.
const ATTEMPTS: u32 = 5;

/// A revision as etcd counts.
pub(crate) fn revision(number: i64) -> Revision {
    Revision(number.max(0).cast_unsigned())
}

/// A key's text, and what may be wrong with it.
pub(crate) fn path(key: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(key).map_err(|_| String::from_utf8_lossy(key).into_owned())
}

/// The fact that etcd holds.
pub(crate) fn fact(kv: &proto::KeyValue) -> Result<Entry, InvalidEntry> {
    let revision = revision(kv.mod_revision);
    let invalid = |path: String, what: &str| InvalidEntry { path, reason: format!("{what} is not UTF-8"), revision };
    let path = path(&kv.key).map_err(|shown| invalid(shown, "the key"))?;
    let text = std::str::from_utf8(&kv.value).map_err(|_| invalid(path.to_owned(), "the value"))?;
    decode(path, text, revision)
}

/// What is under a key.
pub(crate) async fn get(client: &Client, path: String) -> Result<Option<Entry>, StoreError> {
    let request = proto::RangeRequest { key: path.into(), ..proto::RangeRequest::default() };
    let answer = client.range(request).await?;
    answer.kvs.first().map(|kv| fact(kv).map_err(|invalid| StoreError::Invalid(invalid.reason))).transpose()
}

/// The store's revision now, as most of the members have it.
pub(crate) async fn now(client: &Client) -> Result<i64, Fault> {
    let request = proto::RangeRequest { key: "/calico/".into(), ..proto::RangeRequest::default() };
    Ok(client.range(request).await?.header.map_or(0, |header| header.revision))
}

/// Everything in these spans, as it was at one revision.
pub(crate) async fn list(client: &Arc<Client>, spans: &[Span]) -> Result<Listing, Fault> {
    let mut attempt = 1;
    loop {
        let mut whole = Listing::default();
        let keep = &mut |part: Listing| {
            let Listing { entries, invalid, revision } = part;
            whole.entries.extend(entries);
            whole.invalid.extend(invalid);
            whole.revision = revision;
        };
        match list_in_parts(client, spans, keep).await {
            Err(Fault::Compacted) if attempt < ATTEMPTS => attempt += 1,
            Err(fault) => return Err(fault),
            Ok(()) => return Ok(whole),
        }
    }
}

/// The same in parts, a page each. While one is read, the next is on its way.
pub(crate) async fn list_in_parts(
    client: &Arc<Client>,
    spans: &[Span],
    each: &mut dyn FnMut(Listing),
) -> Result<(), Fault> {
    let mut at = 0;
    for Span { start, end } in spans {
        let mut next = Some(page(client, start.clone().into_bytes(), end, at));
        while let Some(coming) = next.take() {
            let proto::RangeResponse { header, kvs, more } = arrived(coming).await?;
            if at == 0 {
                at = header.map_or(0, |header| header.revision);
            }
            if let (true, Some(last)) = (more, kvs.last()) {
                // The first key behind the last one.
                let key = [&last.key[..], &[0]].concat();
                next = Some(page(client, key, end, at));
            }
            each(read(kvs, at));
        }
    }
    if at == 0 {
        each(read(Vec::new(), now(client).await?));
    }
    Ok(())
}

/// A page of a listing that is on its way, alone in its set. One that nobody waits for any more is not fetched further.
type Coming = JoinSet<Result<proto::RangeResponse, Fault>>;

fn page(client: &Arc<Client>, key: Vec<u8>, end: &str, revision: i64) -> Coming {
    let range_end = end.to_owned().into();
    let request = proto::RangeRequest { key: key.into(), range_end, limit: PAGE, revision, keys_only: false };
    let client = client.clone();
    let mut coming = JoinSet::new();
    coming.spawn(async move { client.range(request).await });
    coming
}

async fn arrived(mut coming: Coming) -> Result<proto::RangeResponse, Fault> {
    match coming.join_next().await {
        Some(Ok(page)) => page,
        Some(Err(_)) | None => Err(Fault::Unavailable("a page of a listing was given up".to_owned())),
    }
}

/// The facts of a page. Each text is given back as soon as it is read.
fn read(kvs: Vec<proto::KeyValue>, at: i64) -> Listing {
    let mut listing = Listing { entries: Vec::with_capacity(kvs.len()), invalid: Vec::new(), revision: revision(at) };
    for kv in kvs {
        match fact(&kv) {
            Ok(entry) => listing.entries.push(entry),
            Err(invalid) => listing.invalid.push(invalid),
        }
    }
    listing
}
