//! Policies that versions up to 3.31 keep under `default.NAME`: they are found, changed and deleted by NAME too, where
//! they are, so that no policy is ever there twice.
//!
//! Listings and watches tell the keys that are there. What has its own key costs nothing more; a policy is created only
//! where none has its older key, in the same transaction. When a write finds something else than it expects, the
//! policies that it is about are looked up under both keys, and it is done once more where they are.

use std::collections::BTreeSet;

use tortie_facts::Key;
use tortie_store::{Entry, Expect, StoreError, TextWrite, Write, WriteError, encode, older_key};

use crate::client::Client;
use crate::fault::Fault;
use crate::proto::{self, request_op::Request, response_op::Response};
use crate::read;
use crate::write::{self, Results, Step};

/// Policies that are looked up in one transaction: each has two keys, and etcd takes 128 operations.
const LOOKED_UP: usize = 64;

/// What is under a key, or under its older one.
pub(crate) async fn get(client: &Client, key: &Key) -> Result<Option<Entry>, StoreError> {
    let found = read::get(client, key.path()).await?;
    let (None, Some(older)) = (&found, older_key(key)) else { return Ok(found) };
    // Both at once: it may be renamed just now.
    let [own, old] = both(client, &[(key.path(), older.path())]).await?.pop().unwrap_or_default();
    if let Some(own) = own {
        return read::fact(&own).map(Some).map_err(|invalid| StoreError::Invalid(invalid.reason));
    }
    let entry = old.and_then(|kv| read::fact(&kv).ok()).filter(|entry| is_called(entry, key));
    Ok(entry.map(|Entry { key: _, value, revision }| Entry { key: key.clone(), value, revision }))
}

/// Whether what an older key holds is the policy of this key.
fn is_called(entry: &Entry, key: &Key) -> bool {
    let Key::Resource { kind: _, namespace: _, name } = key else { return false };
    entry.value.as_resource().is_some_and(|policy| policy.metadata().name == *name)
}

/// Does the writes, of which `texts` are the texts, as [`write::write`] does.
pub(crate) async fn write(client: &Client, writes: &[Write], texts: Vec<TextWrite>, stay: i64) -> Results {
    let guards = guards(writes);
    let steps: Vec<Step> = texts.into_iter().zip(guards).map(|(text, unless)| Step { text, unless }).collect();
    let mut results = write::write(client, &steps, stay).await;
    let Some(first) = results.iter().position(Result::is_err) else { return results };
    let about_a_policy = results.iter().zip(writes).any(|(result, write)| {
        matches!(result, Err(WriteError::Conflict { .. } | WriteError::Missing(_))) && older_key(&write.key).is_some()
    });
    if !about_a_policy {
        return results;
    }
    match placed(client, &writes[first..], &steps[first..]).await {
        Ok(placed) if placed == steps[first..] => {}
        Ok(placed) => {
            results.truncate(first);
            results.extend(write::write(client, &placed, stay).await);
        }
        // What was refused stays refused: the caller looks again.
        Err(_) => {}
    }
    results
}

/// The older key that must not be there, for each write that makes a policy.
fn guards(writes: &[Write]) -> Vec<Option<String>> {
    let mut guards: Vec<Option<String>> = Vec::with_capacity(writes.len());
    for Write { key, expect, value } in writes {
        let makes = value.is_some() && matches!(expect, Expect::Absent | Expect::Any);
        guards.push(older_key(key).filter(|_| makes).map(|older| older.path()));
    }
    if guards.iter().any(Option::is_some) {
        // Who writes the older key in the same call knows of it, as a renaming does.
        let named: BTreeSet<String> = writes.iter().map(|write| write.key.path()).collect();
        guards.iter_mut().for_each(|guard| drop(guard.take_if(|guard| named.contains(guard))));
    }
    guards
}

/// The same writes where the policies are: under their older key if they have no other.
async fn placed(client: &Client, writes: &[Write], steps: &[Step]) -> Result<Vec<Step>, Fault> {
    let named: BTreeSet<&Key> = writes.iter().map(|write| &write.key).collect();
    let mut placed = steps.to_vec();
    let asked: Vec<(usize, Key)> = writes
        .iter()
        .enumerate()
        .filter_map(|(at, write)| Some((at, older_key(&write.key)?)))
        .filter(|(_, older)| !named.contains(older))
        .collect();
    for part in asked.chunks(LOOKED_UP) {
        let paths: Vec<(String, String)> =
            part.iter().map(|(at, older)| (writes[*at].key.path(), older.path())).collect();
        for ((at, older), [own, old]) in part.iter().zip(both(client, &paths).await?) {
            let write = &writes[*at];
            let (None, Some(old)) = (own, old) else { continue };
            // What can't be read might be this policy: then nothing is made beside it.
            let Ok(entry) = read::fact(&old) else { continue };
            if is_called(&entry, &write.key) {
                let there = Write { key: older.clone(), expect: write.expect, value: write.value.clone() };
                if let Ok(text) = encode(&there) {
                    placed[*at] = Step { text: TextWrite { name: write.key.to_string(), ..text }, unless: None };
                }
            } else {
                placed[*at].unless = None;
            }
        }
    }
    Ok(placed)
}

/// What is under each of two keys, as it was at one moment.
async fn both(client: &Client, paths: &[(String, String)]) -> Result<Vec<[Option<proto::KeyValue>; 2]>, Fault> {
    let look = |path: &String| {
        let range = proto::RangeRequest { key: path.clone().into(), ..proto::RangeRequest::default() };
        proto::RequestOp { request: Some(Request::RequestRange(range)) }
    };
    let success = paths.iter().flat_map(|(own, old)| [look(own), look(old)]).collect();
    let request = proto::TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
    let answer = client.txn(request).await?;
    let mut found = answer.responses.into_iter().map(|one| match one.response {
        Some(Response::ResponseRange(mut range)) => range.kvs.pop(),
        Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => None,
    });
    Ok(paths.iter().map(|_| [found.next().flatten(), found.next().flatten()]).collect())
}
