//! Which cluster this node belongs to. A datastore of another cluster, or one that was emptied, would take away what
//! lives here, so the node refuses it until it is told to adopt it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::Key;
use tortie_store::Reader;
use tracing::warn;

/// Where the cluster's GUID is kept: beside the node's name.
pub fn file(node_name_file: &Path) -> PathBuf {
    node_name_file.with_file_name("clusterguid")
}

/// Checks that the datastore is that of the cluster that the node was in before, and remembers the cluster. `adopt`
/// takes whatever cluster it is; `place` names the datastore.
pub fn check(store: &dyn Reader, file: &Path, adopt: bool, place: &str) -> Result<()> {
    let known = std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    let found = guid(store).context("can't read which cluster the datastore is of")?;
    let path = file.display();
    match (known.as_str(), found) {
        ("", None) => Ok(()),
        (known, Some(found)) if known == found => Ok(()),
        (known, Some(found)) if adopt || known.is_empty() => {
            remember(file, &found);
            Ok(())
        }
        (_, None) if adopt => Ok(()),
        (known, Some(found)) => bail!(
            "this node belongs to the cluster {known} ({path}), but the datastore ({place}) is of the cluster {found}: \
             correct where the datastore is, or let the node join that cluster with `tortie node --adopt`"
        ),
        (known, None) => bail!(
            "this node belongs to the cluster {known} ({path}), but the datastore ({place}) holds no cluster: correct \
             where the datastore is, restore it, or begin anew with `tortie node --adopt`"
        ),
    }
}

/// The cluster's GUID, if there is a cluster.
fn guid(store: &dyn Reader) -> Result<Option<String>> {
    let entry = store.get(&Key::resource(Kind::ClusterInformation, "", "default"))?;
    let Some(Resource::ClusterInformation(info)) = entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r)
    else {
        return Ok(None);
    };
    Ok(Some(info.spec.cluster_guid.clone()).filter(|guid| !guid.is_empty()))
}

fn remember(file: &Path, guid: &str) {
    let write = || {
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(file, guid)
    };
    if let Err(error) = write() {
        warn!(path = %file.display(), %error, "the node can't remember which cluster it belongs to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::{ClusterInformation, ClusterInformationSpec, Metadata};
    use tortie_facts::Value;
    use tortie_store::MemoryStore;

    fn store(guid: &str) -> MemoryStore {
        let store = MemoryStore::new();
        let spec = ClusterInformationSpec { cluster_guid: guid.to_owned(), ..ClusterInformationSpec::default() };
        let info = ClusterInformation { metadata: Metadata::named("default"), spec };
        let key = Key::resource(Kind::ClusterInformation, "", "default");
        store.put(key, Value::resource(info.into())).expect("written");
        store
    }

    /// A file of this test alone, gone with the guard.
    fn kept(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("tortie-cluster-{}-{name}", std::process::id())).join("clusterguid")
    }

    #[test]
    fn another_clusters_datastore_is_refused_by_name_until_it_is_adopted() {
        let path = kept("other");
        check(&store("aaa"), &path, false, "one").expect("the first cluster");
        check(&store("aaa"), &path, false, "one").expect("the same");
        let error = check(&store("bbb"), &path, false, "the other").expect_err("another").to_string();
        for part in ["aaa", "bbb", "the other", "clusterguid", "--adopt"] {
            assert!(error.contains(part), "{error}");
        }
        let error = check(&MemoryStore::new(), &path, false, "empty").expect_err("nothing").to_string();
        assert!(error.contains("aaa") && error.contains("--adopt"), "{error}");
        check(&store("bbb"), &path, true, "the other").expect("told to");
        check(&store("bbb"), &path, false, "the other").expect("it belongs there now");
        std::fs::remove_dir_all(path.parent().expect("a folder")).expect("it was made");
    }

    #[test]
    fn a_node_that_belongs_nowhere_starts_anywhere() {
        let path = kept("new");
        check(&MemoryStore::new(), &path, false, "empty").expect("the first node of a cluster");
        assert!(!path.exists());
    }
}
