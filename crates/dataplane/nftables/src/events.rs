//! Changes of our table by others, as the kernel announces them: what changed, and which process did it.

use tortie_dataplane::ForeignChange;

use crate::socket::Socket;
use crate::uapi::{INET, generation, msg, table};
use tortie_nfnetlink::Message;

/// Gathers messages into transactions.
#[derive(Debug, Default)]
pub(crate) struct Gatherer {
    objects: usize,
    table_removed: bool,
}

impl Gatherer {
    /// Takes one message in. A transaction ends with its new generation; then a change comes out if it touched the
    /// table and came from another socket than ours.
    pub(crate) fn take(&mut self, message: &Message<'_>, table: &str, own_port: u32) -> Option<ForeignChange> {
        let attributes = message.attributes();
        if message.kind == msg::NEW_GENERATION {
            let Gatherer { objects, table_removed } = std::mem::take(self);
            let foreign = objects > 0 && message.port != own_port;
            return foreign.then(|| ForeignChange {
                process_id: attributes.be32(generation::PROCESS_ID),
                process_name: attributes.text(generation::PROCESS_NAME).map(str::to_owned),
                objects,
                table_removed,
            });
        }
        // The first attribute of every kind of object names its table.
        if message.family() == Some(INET) && attributes.text(table::NAME) == Some(table) {
            self.objects += 1;
            self.table_removed |= message.kind == msg::DEL_TABLE;
        }
        None
    }
}

/// Reads everything that waits on a listening socket. If the kernel lost messages, that counts as a change by nobody
/// known, as it may have been one.
pub(crate) fn drain(socket: &mut Socket, gatherer: &mut Gatherer, table: &str, own_port: u32) -> Vec<ForeignChange> {
    let mut changes = Vec::new();
    loop {
        match socket.next_event() {
            Ok(None) => return changes,
            Ok(Some(bytes)) => {
                changes.extend(tortie_nfnetlink::messages(bytes).filter_map(|m| gatherer.take(&m, table, own_port)));
            }
            Err(_) => {
                *gatherer = Gatherer::default();
                let lost = ForeignChange { process_id: None, process_name: None, objects: 0, table_removed: false };
                if changes.last() == Some(&lost) {
                    return changes;
                }
                changes.push(lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tortie_nfnetlink::{Attributes, messages};

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = crate::element::Entry::parse(Attributes(&bytes));
            let mut gatherer = Gatherer::default();
            let _ = messages(&bytes).filter_map(|m| gatherer.take(&m, "tortie", 1)).count();
        }
    }
}
