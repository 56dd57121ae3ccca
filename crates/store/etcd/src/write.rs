//! Writes: compare-and-swap by revision, the writes of one call in one transaction where that fits.

use std::collections::HashSet;

use tortie_facts::Revision;
use tortie_store::{Expect, TextWrite, WriteError, judge};

use crate::client::Client;
use crate::fault::Fault;
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::{self, request_op::Request, response_op::Response};
use crate::read::revision;

/// Operations that etcd takes in one transaction.
const MAX_OPS: usize = 128;
/// Bytes of keys and values in one transaction: etcd takes 1.5 MiB, and each key is there up to three times.
const MAX_BYTES: usize = 1_200_000;
/// How long the report that a node is alive stays unless somebody says otherwise: upstream's `ReportingTTLSecs`.
pub(crate) const REPORT_SECONDS: i64 = 90;

/// The result of each write of a call.
pub(crate) type Results = Vec<Result<Revision, WriteError>>;

/// A write, and what else must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) text: TextWrite,
    /// A key that must not be there either: an older version's for the same thing.
    pub(crate) unless: Option<String>,
}

/// Does the writes in order and stops at the first that fails. Those of one transaction are all done or none. The report
/// that a node is alive stays for some seconds; for none: for ever.
pub(crate) async fn write(client: &Client, writes: &[Step], stay: i64) -> Results {
    let mut results = Results::with_capacity(writes.len());
    let mut rest = writes;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(first_part(rest));
        if !commit(client, part, stay, &mut results).await {
            break;
        }
        rest = behind;
    }
    results.resize(writes.len(), Err(WriteError::NotTried));
    results
}

/// How many of the writes fit into one transaction: at least one, and each key once.
fn first_part(writes: &[Step]) -> usize {
    let mut keys = HashSet::new();
    let (mut bytes, mut conditions) = (0, 0);
    for (at, step) in writes.iter().enumerate().take(MAX_OPS) {
        let Step { text: TextWrite { name: _, path, expect: _, value }, unless } = step;
        conditions += 1 + usize::from(unless.is_some());
        bytes += 3 * path.len() + unless.as_ref().map_or(0, String::len) + value.as_ref().map_or(0, String::len) + 64;
        if !keys.insert(path) || (at > 0 && (bytes > MAX_BYTES || conditions > MAX_OPS)) {
            return at;
        }
    }
    writes.len().min(MAX_OPS)
}

/// One transaction, or several if etcd finds it too large; whether all was done.
async fn commit(client: &Client, writes: &[Step], stay: i64, results: &mut Results) -> bool {
    match transact(client, writes, stay).await {
        Ok(Ok(revision)) => {
            results.extend(std::iter::repeat_n(Ok(revision), writes.len()));
            true
        }
        Ok(Err(refused)) => {
            results.extend(refused);
            false
        }
        Err(Fault::TooLarge) if writes.len() > 1 => {
            let (left, right) = writes.split_at(writes.len() / 2);
            Box::pin(commit(client, left, stay, results)).await && Box::pin(commit(client, right, stay, results)).await
        }
        // Whether any of them was done is not known, so none of them is said not to have been tried.
        Err(fault) => {
            results.extend(std::iter::repeat_n(Err(WriteError::from(fault)), writes.len()));
            false
        }
    }
}

/// The revision of what was written, or what each write found.
async fn transact(client: &Client, writes: &[Step], stay: i64) -> Result<Result<Revision, Results>, Fault> {
    let mut lease = 0;
    if stay > 0 && writes.iter().any(|step| expires(&step.text)) {
        lease = client.lease(stay).await?;
    }
    let request = proto::TxnRequest {
        compare: writes.iter().flat_map(comparisons).collect(),
        success: writes.iter().map(|step| operation(&step.text, lease)).collect(),
        failure: writes.iter().map(|step| look(&step.text)).collect(),
    };
    let answer = client.txn(request).await?;
    if answer.succeeded {
        return Ok(Ok(revision(answer.header.map_or(0, |header| header.revision))));
    }
    let found = answer.responses.iter().map(|one| match &one.response {
        Some(Response::ResponseRange(range)) => range.kvs.first().map(|kv| revision(kv.mod_revision)),
        Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_)) | None => None,
    });
    let mut judged: Vec<_> = writes.iter().zip(found).map(|(step, found)| verdict(&step.text, found)).collect();
    if judged.iter().all(Result::is_ok)
        && let Some(at) = writes.iter().position(|step| step.unless.is_some())
    {
        // One of the older keys is there; who reads them knows which.
        let zero = Revision(0);
        judged[at] = Err(WriteError::Conflict { key: writes[at].text.name.clone(), found: zero, expected: zero });
    }
    let Some(first) = judged.iter().position(Result::is_err) else {
        return Err(Fault::Unavailable("etcd refused a transaction whose conditions hold".to_owned()));
    };
    let one = |(at, judged): (usize, Result<(), WriteError>)| match judged {
        Err(error) if at == first => Err(error),
        Ok(()) | Err(_) => Err(WriteError::NotTried),
    };
    Ok(Err(judged.into_iter().enumerate().map(one).collect()))
}

fn verdict(write: &TextWrite, found: Option<Revision>) -> Result<(), WriteError> {
    let TextWrite { name, path: _, expect, value } = write;
    judge(name, *expect, value.is_none(), found)
}

/// Whether this says that a node is alive, which must not outlive the node: upstream's report with a time to live.
fn expires(write: &TextWrite) -> bool {
    write.value.is_some() && write.path.starts_with("/calico/felix/v2/") && write.path.ends_with("/status")
}

fn compare(path: &str, result: CompareResult, target: CompareTarget, union: TargetUnion) -> proto::Compare {
    proto::Compare {
        result: result.into(),
        target: target.into(),
        key: path.to_owned().into(),
        target_union: Some(union),
    }
}

/// That nothing is there.
fn absent(path: &str) -> proto::Compare {
    compare(path, CompareResult::Equal, CompareTarget::Version, TargetUnion::Version(0))
}

/// What must hold; [`judge`] is the same rule.
fn comparisons(step: &Step) -> Vec<proto::Compare> {
    let Step { text: TextWrite { name: _, path, expect, value }, unless } = step;
    let own = match (expect, value.is_none()) {
        (Expect::Any, false) => None,
        (Expect::Any, true) => {
            Some(compare(path, CompareResult::Greater, CompareTarget::Version, TargetUnion::Version(0)))
        }
        (Expect::Absent, false) => Some(absent(path)),
        // Nothing can be deleted that must not be there, and nothing that is there has the revision zero.
        (Expect::Absent, true) | (Expect::Revision(Revision(0)), _) => {
            Some(compare(path, CompareResult::Less, CompareTarget::Version, TargetUnion::Version(0)))
        }
        (Expect::Revision(Revision(expected)), _) => {
            let expected = i64::try_from(*expected).unwrap_or(i64::MAX);
            Some(compare(path, CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(expected)))
        }
    };
    own.into_iter().chain(unless.as_deref().map(absent)).collect()
}

fn operation(write: &TextWrite, lease: i64) -> proto::RequestOp {
    let TextWrite { name: _, path, expect: _, value } = write;
    let key = path.clone().into();
    let request = match value {
        Some(value) => {
            let lease = if expires(write) { lease } else { 0 };
            Request::RequestPut(proto::PutRequest { key, value: value.clone().into(), lease })
        }
        None => Request::RequestDeleteRange(proto::DeleteRangeRequest { key }),
    };
    proto::RequestOp { request: Some(request) }
}

/// Asks for what is there, without its value.
fn look(write: &TextWrite) -> proto::RequestOp {
    let key = write.path.clone().into();
    let range = proto::RangeRequest { key, keys_only: true, ..proto::RangeRequest::default() };
    proto::RequestOp { request: Some(Request::RequestRange(range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &str, bytes: usize) -> TextWrite {
        TextWrite { name: path.into(), path: path.into(), expect: Expect::Any, value: Some("x".repeat(bytes)) }
    }

    #[test]
    fn a_transaction_holds_what_etcd_takes_and_each_key_once() {
        let put = |path: &str, bytes: usize| Step { text: put(path, bytes), unless: None };
        let mut many: Vec<_> = (0..300).map(|n| put(&format!("/k{n}"), 1)).collect();
        assert_eq!(first_part(&many), MAX_OPS);
        many.iter_mut().for_each(|step| step.unless = Some("/old".to_owned()));
        assert_eq!(first_part(&many), MAX_OPS / 2);
        assert_eq!(first_part(&many[..5]), 5);
        assert_eq!(first_part(&[put("/a", 1), put("/b", 1), put("/a", 1)]), 2);
        assert_eq!(first_part(&[put("/a", 900_000), put("/b", 900_000)]), 1);
        assert_eq!(first_part(&[put("/a", 9_000_000)]), 1);
    }

    #[test]
    fn only_the_report_of_a_living_node_expires() {
        assert!(expires(&put("/calico/felix/v2/no-region/host/n1/status", 1)));
        for path in [
            "/calico/felix/v2/no-region/host/n1/last_reported_status",
            "/calico/felix/v1/host/n1/endpoint/eth0",
            "/calico/resources/v3/projectcalico.org/nodes/status",
        ] {
            assert!(!expires(&put(path, 1)), "{path}");
        }
    }
}
