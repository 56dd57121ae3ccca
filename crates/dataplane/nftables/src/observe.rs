//! What the kernel holds in our table, read back.
//!
//! Chains, sets, rules and elements come from separate dumps; the generation number before and after tells whether
//! they fit together.

use std::collections::{BTreeMap, BTreeSet};

use tortie_ruleset::Name;

use crate::element::{Entry, Form};
use crate::error::Error;
use crate::socket::Socket;
use crate::uapi::{INET, chain, elements, generation, msg, rule, set, table};
use tortie_nfnetlink::{Head, Message, Writer};

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ATTEMPTS: usize = 8;

/// A base chain's place, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenPlace {
    pub(crate) kind: String,
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    pub(crate) accepts: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SeenChain {
    pub(crate) place: Option<SeenPlace>,
    /// The expressions of each rule.
    pub(crate) rules: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) struct SeenSet {
    pub(crate) form: Form,
    pub(crate) entries: BTreeSet<Entry>,
    /// Whether something in it is none of what we write.
    pub(crate) odd: bool,
}

/// The table as read.
#[derive(Clone, Debug)]
pub(crate) struct SeenTable {
    pub(crate) flags: u32,
    pub(crate) owner: Option<u32>,
    pub(crate) chains: BTreeMap<Name, SeenChain>,
    pub(crate) sets: BTreeMap<Name, SeenSet>,
}

/// The table, if it is there, and the generation that it was read at.
pub(crate) fn observe(socket: &mut Socket, name: &str) -> Result<(Option<SeenTable>, u32), Error> {
    for _ in 0..ATTEMPTS {
        let before = current_generation(socket)?;
        let seen = read(socket, name)?;
        if current_generation(socket)? == before
            && let Some(seen) = seen
        {
            return Ok((seen, before));
        }
    }
    Err(Error::Unsettled)
}

/// The number that grows with each transaction of anyone.
pub(crate) fn current_generation(socket: &mut Socket) -> Result<u32, Error> {
    let mut id = 0;
    dump(
        socket,
        msg::GET_GENERATION,
        0,
        |_| {},
        |m| {
            if m.kind == msg::NEW_GENERATION {
                id = m.attributes().be32(generation::ID).unwrap_or(0);
            }
        },
    )?;
    Ok(id)
}

/// Family and name of every table.
pub(crate) fn tables(socket: &mut Socket) -> Result<Vec<(u8, String)>, Error> {
    listed(socket, msg::GET_TABLE, 0, |m| m.family().zip(m.attributes().text(table::NAME).map(str::to_owned)))
}

/// Names of the chains of any table.
pub(crate) fn chains(socket: &mut Socket, family: u8, table: &str) -> Result<Vec<String>, Error> {
    listed(socket, msg::GET_CHAIN, family, |m| {
        let attributes = m.attributes();
        let wanted = m.family() == Some(family) && attributes.text(chain::TABLE) == Some(table);
        attributes.text(chain::NAME).filter(|_| wanted).map(str::to_owned)
    })
}

/// What is wanted of all objects of a kind, in any table; family 0 is all families.
fn listed<T>(
    socket: &mut Socket,
    kind: u16,
    family: u8,
    wanted: impl Fn(&Message<'_>) -> Option<T>,
) -> Result<Vec<T>, Error> {
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        let mut writer = Writer::default();
        writer.message(Head { kind, flags: REQUEST | DUMP, seq: 1, family, resource: 0 }, |_| {});
        if socket.dump(&writer.bytes, |m| found.extend(wanted(m)))?.into() {
            return Ok(found);
        }
    }
    Err(Error::Unsettled)
}

/// `None` if a dump was interrupted by a change.
fn read(socket: &mut Socket, name: &str) -> Result<Option<Option<SeenTable>>, Error> {
    let mut found = None;
    let mut whole = dump(
        socket,
        msg::GET_TABLE,
        DUMP,
        |_| {},
        |m| {
            let attributes = m.attributes();
            if m.family() == Some(INET) && attributes.text(table::NAME) == Some(name) {
                found = Some(SeenTable {
                    flags: attributes.be32(table::FLAGS).unwrap_or(0),
                    owner: attributes.be32(table::OWNER),
                    chains: BTreeMap::new(),
                    sets: BTreeMap::new(),
                });
            }
        },
    )?;
    let Some(mut seen) = found else { return Ok(whole.then_some(None)) };
    whole &= dump(
        socket,
        msg::GET_CHAIN,
        DUMP,
        |_| {},
        |m| {
            let attributes = m.attributes();
            if let (true, Some(chain)) = (ours(m, name), attributes.text(chain::NAME)) {
                seen.chains.insert(Name::from(chain), SeenChain { place: place(m), rules: Vec::new() });
            }
        },
    )?;
    whole &= read_rules(socket, name, &mut seen.chains)?;
    whole &= dump(
        socket,
        msg::GET_SET,
        DUMP,
        |w| w.put_str(set::TABLE, name),
        |m| {
            let attributes = m.attributes();
            if let (true, Some(set)) = (ours(m, name), attributes.text(set::NAME)) {
                let number = |kind| attributes.be32(kind).unwrap_or(0);
                let form =
                    Form { flags: number(set::FLAGS), key_type: number(set::KEY_TYPE), key_len: number(set::KEY_LEN) };
                seen.sets.insert(Name::from(set), SeenSet { form, entries: BTreeSet::new(), odd: false });
            }
        },
    )?;
    whole &= read_elements(socket, name, &mut seen.sets)?;
    Ok(whole.then_some(Some(seen)))
}

/// Fills the chains in; returns whether no dump was interrupted. One chain after the other: for each part of a dump of
/// them all the kernel goes through the rules from the first again.
fn read_rules(socket: &mut Socket, name: &str, chains: &mut BTreeMap<Name, SeenChain>) -> Result<bool, Error> {
    let mut whole = true;
    for (chain, content) in chains {
        let request = |w: &mut Writer| {
            w.put_str(rule::TABLE, name);
            w.put_str(rule::CHAIN, chain);
        };
        whole &= dump(socket, msg::GET_RULE, DUMP, request, |m| {
            content.rules.push(m.attributes().get(rule::EXPRESSIONS).unwrap_or_default().to_vec());
        })?;
    }
    Ok(whole)
}

/// The handles of a chain's rules, in order; `None` if they changed meanwhile, or if there is no such chain.
pub(crate) fn handles(socket: &mut Socket, table: &str, chain: &Name) -> Result<Option<Vec<u64>>, Error> {
    let mut handles = Vec::new();
    let request = |w: &mut Writer| {
        w.put_str(rule::TABLE, table);
        w.put_str(rule::CHAIN, chain);
    };
    let whole = dump(socket, msg::GET_RULE, DUMP, request, |m| {
        let handle = m.attributes().get(rule::HANDLE).and_then(|bytes| bytes.try_into().ok());
        handles.extend(handle.map(u64::from_be_bytes));
    })?;
    Ok(whole.then_some(handles))
}

/// Fills the sets in; returns whether no dump was interrupted.
fn read_elements(socket: &mut Socket, name: &str, sets: &mut BTreeMap<Name, SeenSet>) -> Result<bool, Error> {
    let mut whole = true;
    for (set, content) in sets {
        let request = |w: &mut Writer| {
            w.put_str(elements::TABLE, name);
            w.put_str(elements::SET, set);
        };
        whole &= dump(socket, msg::GET_ELEMENTS, DUMP, request, |m| {
            for (_, item) in m.attributes().nested(elements::LIST) {
                match Entry::parse(tortie_nfnetlink::Attributes(item)) {
                    Some(entry) => drop(content.entries.insert(entry)),
                    None => content.odd = true,
                }
            }
        })?;
    }
    Ok(whole)
}

fn place(message: &Message<'_>) -> Option<SeenPlace> {
    let attributes = message.attributes();
    let hook = attributes.nested(chain::HOOK);
    Some(SeenPlace {
        hook: hook.be32(chain::HOOK_NUM)?,
        priority: hook.be32(chain::HOOK_PRIORITY)?.cast_signed(),
        kind: attributes.text(chain::TYPE)?.to_owned(),
        accepts: attributes.be32(chain::POLICY) == Some(1),
    })
}

/// The first attribute of chains, rules and sets names their table.
fn ours(message: &Message<'_>, table: &str) -> bool {
    message.family() == Some(INET) && message.attributes().text(1) == Some(table)
}

fn dump(
    socket: &mut Socket,
    kind: u16,
    flags: u16,
    request: impl FnOnce(&mut Writer),
    each: impl FnMut(&Message<'_>),
) -> Result<bool, Error> {
    let mut writer = Writer::default();
    // Without a dump flag the answer is one message; the acknowledgement then marks its end.
    let flags = REQUEST | if flags == 0 { 4 } else { flags };
    writer.message(Head { kind, flags, seq: 1, family: INET, resource: 0 }, request);
    match socket.dump(&writer.bytes, each) {
        Ok(outcome) => Ok(outcome.into()),
        // A set or table that went away between two dumps: the generation has changed, so all is read again.
        Err(nix::errno::Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
