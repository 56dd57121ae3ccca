//! Reads: one key, and a consistent listing in pages.

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
pub(crate) async fn list(client: &Client, spans: &[Span]) -> Result<Listing, Fault> {
    let mut attempt = 1;
    loop {
        match list_once(client, spans).await {
            Err(Fault::Compacted) if attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

async fn list_once(client: &Client, spans: &[Span]) -> Result<Listing, Fault> {
    let mut listing = Listing::default();
    let mut at = 0;
    for Span { start, end } in spans {
        let mut key = start.clone().into_bytes();
        loop {
            let range_end = end.clone().into();
            let request =
                proto::RangeRequest { key: key.into(), range_end, limit: PAGE, revision: at, keys_only: false };
            let page = client.range(request).await?;
            if at == 0 {
                at = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|kv| kv.key.to_vec());
            // Each text is given back as soon as it is read.
            for kv in page.kvs {
                match fact(&kv) {
                    Ok(entry) => listing.entries.push(entry),
                    Err(invalid) => listing.invalid.push(invalid),
                }
            }
            match (page.more, last) {
                (true, Some(mut last)) => {
                    last.push(0);
                    key = last;
                }
                (true | false, _) => break,
            }
        }
    }
    if at == 0 {
        at = now(client).await?;
    }
    listing.revision = revision(at);
    Ok(listing)
}
