//! What the rules have counted, read while somebody else may own the table.

use nix::errno::Errno;

use crate::error::Error;
use crate::socket::{Socket, unavailable};
use crate::uapi::{INET, expr, msg, rule};
use tortie_nfnetlink::{Attributes, Head, Writer};

/// Reads the counters of rules.
#[derive(Debug)]
pub struct Counters {
    socket: Socket,
    table: String,
}

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;

impl Counters {
    /// Opens nf_tables of the calling thread's network namespace, to read a table.
    pub fn open(table: &str) -> Result<Counters, Error> {
        Ok(Counters { socket: Socket::open(false).map_err(unavailable)?, table: table.to_owned() })
    }

    /// Packets that the rules of a chain have counted since it was made; `None`: there is no such chain.
    pub fn packets(&mut self, chain: &str) -> Result<Option<u64>, Error> {
        let mut request = Writer::default();
        let head = Head { kind: msg::GET_RULE, flags: REQUEST | DUMP, seq: 1, family: INET, resource: 0 };
        request.message(head, |w| {
            w.put_str(rule::TABLE, &self.table);
            w.put_str(rule::CHAIN, chain);
        });
        let (mut rules, mut packets) = (false, 0);
        let dumped = self.socket.dump(&request.bytes, |message| {
            rules = true;
            packets += counted(message.attributes().nested(rule::EXPRESSIONS));
        });
        match dumped {
            Ok(_) => Ok(rules.then_some(packets)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(unavailable(errno)),
        }
    }
}

fn counted(expressions: Attributes<'_>) -> u64 {
    let packets = |item: &[u8]| {
        let item = Attributes(item);
        let bytes = item.nested(expr::DATA).get(expr::COUNTER_PACKETS)?;
        (item.text(expr::NAME) == Some("counter")).then(|| bytes.try_into().map(u64::from_be_bytes).ok())?
    };
    expressions.filter_map(|(_, item)| packets(item)).fold(0, u64::saturating_add)
}
