//! One transaction: a batch of messages that the kernel does whole or not at all.
//!
//! Invariant: messages stand in an order in which each finds what it refers to, and all go out in one datagram.

use nix::errno::Errno;
use tortie_ruleset::{Base, Chain, Element, Name, Rule, SetType};

use crate::compare;
use crate::element;
use crate::error::{Error, Object};
use crate::expression;
use crate::socket::{Answer, Socket, unavailable};
use crate::uapi::{INET, chain, elements, generation, msg, rule, set, table};
use tortie_nfnetlink::{Head, Writer};

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// Deletes only what is empty (NLM_F_NONREC).
const NON_RECURSIVE: u16 = 0x100;
/// Below the 64 KiB that a nested attribute can hold.
const LIST_LIMIT: usize = 60_000;

/// Tells the nft tool that keys are in host order, without which it prints interface names as empty: a field of kind
/// 0 (byte order of keys) and 4 bytes with the value 1.
const HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];

/// How much was written, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the transaction.
    pub bytes: usize,
    /// Chains that came, went or got new rules.
    pub chains: usize,
    /// Rules.
    pub rules: usize,
    /// Sets and maps that came or went.
    pub sets: usize,
    /// Elements of sets and maps that came or went.
    pub elements: usize,
}

/// What the kernel calls the place of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: &'static str,
    pub(crate) hook: u32,
    pub(crate) priority: i32,
}

/// Where base chains hook in. The filter's are next to each other, so that each sees what the one before accepted.
/// Source translation comes after other tables' (priority 100), as upstream's.
pub(crate) fn place(base: Base) -> Place {
    const PREROUTING: u32 = 0;
    const INPUT: u32 = 1;
    const FORWARD: u32 = 2;
    const OUTPUT: u32 = 3;
    const POSTROUTING: u32 = 4;
    let (kind, hook, priority) = match base {
        Base::RawPrerouting => ("filter", PREROUTING, -300),
        Base::RawOutput => ("filter", OUTPUT, -300),
        Base::BeforeNat => ("filter", PREROUTING, -150),
        Base::DestinationNat => ("nat", PREROUTING, -100),
        Base::DestinationNatOutput => ("nat", OUTPUT, -100),
        Base::FromHost => ("filter", FORWARD, -1),
        Base::FromWorkload => ("filter", FORWARD, 0),
        Base::ToWorkload => ("filter", FORWARD, 1),
        Base::ToHost => ("filter", FORWARD, 2),
        Base::Input => ("filter", INPUT, 0),
        Base::Output => ("filter", OUTPUT, 0),
        Base::Postrouting => ("filter", POSTROUTING, -150),
        Base::Marking => ("filter", POSTROUTING, -149),
        Base::SourceNat => ("nat", POSTROUTING, 110),
    };
    Place { kind, hook, priority }
}

#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    table: &'a str,
    writer: Writer,
    objects: Vec<Object>,
    last_start: usize,
    set_id: u32,
    written: Written,
}

impl<'a> Transaction<'a> {
    /// An empty transaction for a table. With `generation`, the kernel refuses it if the rules are of another
    /// generation by then.
    pub(crate) fn new(table: &'a str, generation: Option<u32>) -> Transaction<'a> {
        let mut writer = Writer::default();
        let head = Head { kind: msg::BATCH_BEGIN, flags: REQUEST, seq: 0, family: 0, resource: msg::RESOURCE };
        writer.message(head, |w| {
            if let Some(id) = generation {
                w.put_be32(generation::ID, id);
            }
        });
        let objects = vec![Object::Transaction];
        Transaction { table, writer, objects, last_start: 0, set_id: 0, written: Written::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.objects.len() == 1
    }

    /// Sends the batch. Whatever goes wrong, either all of it is done or nothing.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<Written, Error> {
        if self.is_empty() {
            return Ok(Written::default());
        }
        let last = self.close();
        let answers = socket.transact(&self.writer.bytes).map_err(unavailable)?;
        if let Some(answer) = answers.iter().find(|a| a.errno != 0) {
            let Answer { seq, errno, detail } = answer.clone();
            let object = self.objects.get(seq as usize).cloned().unwrap_or(Object::Transaction);
            return Err(Error::Refused { object, errno: Errno::from_raw(errno), detail });
        }
        if !answers.iter().any(|a| a.seq == last) {
            return Err(unavailable(Errno::ENOBUFS));
        }
        self.written.bytes = self.writer.bytes.len();
        Ok(self.written)
    }

    /// Ends the batch, with an answer asked for the last message; its number.
    fn close(&mut self) -> u32 {
        let flags = &mut self.writer.bytes[self.last_start + 6..self.last_start + 8];
        let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
        flags.copy_from_slice(&with_ack.to_ne_bytes());
        let last = self.sequence() - 1;
        let head =
            Head { kind: msg::BATCH_END, flags: REQUEST, seq: self.sequence(), family: 0, resource: msg::RESOURCE };
        self.writer.message(head, |_| {});
        last
    }

    /// The batch as it would be sent.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.close();
        self.writer.bytes
    }

    fn sequence(&self) -> u32 {
        u32::try_from(self.objects.len()).expect("fewer messages than bytes")
    }

    fn message(&mut self, kind: u16, flags: u16, object: Object, inner: impl FnOnce(&mut Writer)) {
        self.message_in(INET, kind, flags, object, inner);
    }

    fn message_in(&mut self, family: u8, kind: u16, flags: u16, object: Object, inner: impl FnOnce(&mut Writer)) {
        self.last_start = self.writer.bytes.len();
        let head = Head { kind, flags: REQUEST | flags, seq: self.sequence(), family, resource: 0 };
        self.objects.push(object);
        self.writer.message(head, inner);
    }

    /// Creates the table, or takes over one without owner.
    pub(crate) fn table(&mut self, flags: u32) {
        let name = self.table;
        self.message(msg::NEW_TABLE, CREATE, Object::Table, |w| {
            w.put_str(table::NAME, name);
            w.put_be32(table::FLAGS, flags);
        });
    }

    /// Removes the table with all that is in it.
    pub(crate) fn delete_table(&mut self) {
        let name = self.table;
        self.message(msg::DEL_TABLE, 0, Object::Table, |w| w.put_str(table::NAME, name));
    }

    /// Removes another table, of any family.
    pub(crate) fn delete_other_table(&mut self, family: u8, name: &str) {
        self.message_in(family, msg::DEL_TABLE, 0, Object::Table, |w| w.put_str(table::NAME, name));
    }

    /// Removes another table that has these chains; refused if there is more in it, or any rule.
    pub(crate) fn delete_empty_table(&mut self, family: u8, name: &str, chains: &[String]) {
        for chain in chains {
            self.message_in(family, msg::DEL_CHAIN, NON_RECURSIVE, Object::Table, |w| {
                w.put_str(chain::TABLE, name);
                w.put_str(chain::NAME, chain);
            });
        }
        self.message_in(family, msg::DEL_TABLE, NON_RECURSIVE, Object::Table, |w| w.put_str(table::NAME, name));
    }

    pub(crate) fn chain(&mut self, name: &Name, base: Option<Base>) {
        let table = self.table;
        self.written.chains += 1;
        self.message(msg::NEW_CHAIN, CREATE, Object::Chain(name.clone()), |w| {
            w.put_str(chain::TABLE, table);
            w.put_str(chain::NAME, name);
            if let Some(Place { kind, hook, priority }) = base.map(place) {
                w.nest(chain::HOOK, |w| {
                    w.put_be32(chain::HOOK_NUM, hook);
                    w.put(chain::HOOK_PRIORITY, &priority.to_be_bytes());
                });
                w.put_be32(chain::POLICY, 1);
                w.put_str(chain::TYPE, kind);
            }
        });
    }

    /// Removes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &Name) {
        let table = self.table;
        self.written.chains += 1;
        self.message(msg::DEL_RULE, 0, Object::Chain(name.clone()), |w| {
            w.put_str(rule::TABLE, table);
            w.put_str(rule::CHAIN, name);
        });
    }

    pub(crate) fn delete_chain(&mut self, name: &Name) {
        let table = self.table;
        self.message(msg::DEL_CHAIN, 0, Object::Chain(name.clone()), |w| {
            w.put_str(chain::TABLE, table);
            w.put_str(chain::NAME, name);
        });
    }

    /// Appends rules to a chain.
    pub(crate) fn rules(&mut self, name: &Name, rules: &[Rule]) {
        for (index, wanted) in rules.iter().enumerate() {
            self.rule(name, index, wanted, None);
        }
    }

    /// Makes a chain's rules those of another one, where rules that stay are left alone. `handles`: of the rules that
    /// it has, in order.
    pub(crate) fn change_rules(&mut self, name: &Name, had: &Chain, now: &Chain, handles: &[u64]) {
        let table = self.table;
        let (head, tail) = compare::kept(had, now);
        self.written.chains += 1;
        for handle in &handles[head..had.rules.len() - tail] {
            self.message(msg::DEL_RULE, 0, Object::Chain(name.clone()), |w| {
                w.put_str(rule::TABLE, table);
                w.put_str(rule::CHAIN, name);
                w.put(rule::HANDLE, &handle.to_be_bytes());
            });
        }
        let before = handles.get(had.rules.len() - tail).copied();
        for (index, wanted) in now.rules.iter().enumerate().take(now.rules.len() - tail).skip(head) {
            self.rule(name, index, wanted, before);
        }
    }

    /// Puts a rule before the one with a handle, or at the end.
    fn rule(&mut self, name: &Name, index: usize, wanted: &Rule, before: Option<u64>) {
        let table = self.table;
        let expressions = expression::encode(wanted);
        self.written.rules += 1;
        let flags = if before.is_some() { CREATE } else { CREATE | APPEND };
        self.message(msg::NEW_RULE, flags, Object::Rule(name.clone(), index), |w| {
            w.put_str(rule::TABLE, table);
            w.put_str(rule::CHAIN, name);
            w.put(rule::EXPRESSIONS, &expressions);
            if let Some(handle) = before {
                w.put(rule::POSITION, &handle.to_be_bytes());
            }
        });
    }

    pub(crate) fn set(&mut self, name: &Name, form: element::Form) {
        let table = self.table;
        self.set_id += 1;
        self.written.sets += 1;
        let element::Form { flags, key_type, key_len } = form;
        let id = self.set_id;
        self.message(msg::NEW_SET, CREATE, Object::Set(name.clone()), |w| {
            w.put_str(set::TABLE, table);
            w.put_str(set::NAME, name);
            w.put_be32(set::FLAGS, flags);
            w.put_be32(set::KEY_TYPE, key_type);
            w.put_be32(set::KEY_LEN, key_len);
            if flags & set::FLAG_MAP != 0 {
                w.put_be32(set::DATA_TYPE, set::DATA_VERDICT);
            }
            w.put_be32(set::ID, id);
            if key_type == element::INTERFACE {
                w.put(set::USERDATA, &HOST_ORDER);
            }
        });
    }

    pub(crate) fn delete_set(&mut self, name: &Name) {
        let table = self.table;
        self.written.sets += 1;
        self.message(msg::DEL_SET, 0, Object::Set(name.clone()), |w| {
            w.put_str(set::TABLE, table);
            w.put_str(set::NAME, name);
        });
    }

    /// Removes all elements of a set.
    pub(crate) fn flush_elements(&mut self, name: &Name) {
        let table = self.table;
        self.message(msg::DEL_ELEMENTS, 0, Object::Elements(name.clone()), |w| {
            w.put_str(elements::TABLE, table);
            w.put_str(elements::SET, name);
        });
    }

    pub(crate) fn add_elements<'e>(&mut self, name: &Name, items: impl IntoIterator<Item = &'e Element>) {
        let items = items.into_iter().flat_map(element::entries);
        self.elements(msg::NEW_ELEMENTS, CREATE, name, items);
    }

    pub(crate) fn delete_elements<'e>(&mut self, name: &Name, items: impl IntoIterator<Item = &'e Element>) {
        let items = items.into_iter().flat_map(element::entries);
        self.elements(msg::DEL_ELEMENTS, 0, name, items);
    }

    /// Adds or removes raw entries, in as many messages as their lists need.
    pub(crate) fn add_entries(&mut self, name: &Name, items: impl IntoIterator<Item = element::Entry>) {
        self.elements(msg::NEW_ELEMENTS, CREATE, name, items.into_iter());
    }

    pub(crate) fn delete_entries(&mut self, name: &Name, items: impl IntoIterator<Item = element::Entry>) {
        self.elements(msg::DEL_ELEMENTS, 0, name, items.into_iter());
    }

    fn elements(&mut self, kind: u16, flags: u16, name: &Name, items: impl Iterator<Item = element::Entry>) {
        let table = self.table;
        let mut items = items.peekable();
        while items.peek().is_some() {
            let mut list = Writer::default();
            while let Some(item) = items.next_if(|_| list.bytes.len() < LIST_LIMIT) {
                self.written.elements += usize::from(!item.is_end());
                list.nest(elements::ITEM, |w| item.put(w));
            }
            self.message(kind, flags, Object::Elements(name.clone()), |w| {
                w.put_str(elements::TABLE, table);
                w.put_str(elements::SET, name);
                w.put(elements::LIST, &list.bytes);
            });
        }
    }

    /// Creates a set of a type.
    pub(crate) fn typed_set(&mut self, name: &Name, set_type: SetType) {
        self.set(name, element::form(set_type));
    }
}
