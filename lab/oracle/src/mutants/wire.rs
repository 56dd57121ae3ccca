//! A batch of nf_tables messages taken apart, to be changed and put together again.

/// Numbers of `linux/netfilter/nf_tables.h`.
const NEW_CHAIN: u16 = 10 << 8 | 3;
const NEW_RULE: u16 = 10 << 8 | 6;
const NEW_ELEMENTS: u16 = 10 << 8 | 12;
const CHAIN_HOOK: u16 = 4;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENTS_LIST: u16 = 3;
const LIST_ITEM: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// Attributes: number and value.
pub type Attributes = Vec<(u16, Vec<u8>)>;

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Its name, such as `cmp`.
    pub name: String,
    /// Its attributes.
    pub data: Attributes,
}

impl Expression {
    /// A number in network order.
    pub fn number(&self, kind: u16) -> Option<u32> {
        let value = self.data.iter().find(|(k, _)| *k == kind)?;
        Some(u32::from_be_bytes(value.1.get(..4)?.try_into().ok()?))
    }

    /// Changes a number in network order.
    pub fn set(&mut self, kind: u16, number: u32) {
        if let Some((_, value)) = self.data.iter_mut().find(|(k, _)| *k == kind) {
            *value = number.to_be_bytes().to_vec();
        }
    }

    /// Changes the value inside an attribute that holds a value.
    pub fn edit(&mut self, kind: u16, change: impl Fn(&mut [u8])) {
        for (_, nested) in self.data.iter_mut().filter(|(k, _)| *k == kind) {
            let mut inner = read(nested);
            inner.iter_mut().for_each(|(_, value)| change(value));
            *nested = write(&inner);
        }
    }
}

struct Message {
    kind: u16,
    /// Headers, 20 bytes.
    head: Vec<u8>,
    attributes: Attributes,
}

/// A batch.
pub struct Wire(Vec<Message>);

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a batch of {} messages", self.0.len())
    }
}

impl Wire {
    /// Takes a batch apart.
    pub fn read(mut bytes: &[u8]) -> Wire {
        let mut messages = Vec::new();
        while bytes.len() >= 20 {
            let len = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
            let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
            messages.push(Message { kind, head: bytes[..20].to_vec(), attributes: read(&bytes[20..len]) });
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Wire(messages)
    }

    /// Puts it together.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for Message { kind: _, head, attributes } in &self.0 {
            let body = write(attributes);
            let len = u32::try_from(20 + body.len()).expect("a small batch");
            out.extend_from_slice(&len.to_ne_bytes());
            out.extend_from_slice(&head[4..]);
            out.extend_from_slice(&body);
        }
        out
    }

    /// Changes the expressions of every rule, given with the name of its chain.
    pub fn rules(&mut self, change: impl Fn(&str, &mut Vec<Expression>)) {
        for Message { kind: _, head: _, attributes } in self.0.iter_mut().filter(|m| m.kind == NEW_RULE) {
            let chain = text(attributes, RULE_CHAIN);
            for (_, list) in attributes.iter_mut().filter(|(kind, _)| *kind == RULE_EXPRESSIONS) {
                let mut expressions: Vec<Expression> =
                    read(list).into_iter().map(|(_, item)| expression(&item)).collect();
                change(&chain, &mut expressions);
                *list = write(&expressions.iter().map(|e| (LIST_ITEM, item(e))).collect());
            }
        }
    }

    /// Changes the attributes of every element of every set and map; an element that is left without any is removed.
    pub fn elements(&mut self, change: impl Fn(&mut Attributes)) {
        for Message { kind: _, head: _, attributes } in self.0.iter_mut().filter(|m| m.kind == NEW_ELEMENTS) {
            for (_, list) in attributes.iter_mut().filter(|(kind, _)| *kind == ELEMENTS_LIST) {
                let mut items: Vec<Attributes> = read(list).into_iter().map(|(_, item)| read(&item)).collect();
                items.iter_mut().for_each(&change);
                items.retain(|item| !item.is_empty());
                *list = write(&items.iter().map(|item| (LIST_ITEM, write(item))).collect());
            }
        }
    }

    /// Changes where base chains hook in: the number of the hook and the priority.
    pub fn hooks(&mut self, change: impl Fn(u32, i32) -> (u32, i32)) {
        for Message { kind: _, head: _, attributes } in self.0.iter_mut().filter(|m| m.kind == NEW_CHAIN) {
            for (_, hook) in attributes.iter_mut().filter(|(kind, _)| *kind == CHAIN_HOOK) {
                let parts = read(hook);
                let [number, priority] =
                    [0, 1].map(|at: usize| u32::from_be_bytes(parts[at].1[..4].try_into().expect("four bytes")));
                let (number, priority) = change(number, priority.cast_signed());
                let parts =
                    vec![(parts[0].0, number.to_be_bytes().to_vec()), (parts[1].0, priority.to_be_bytes().to_vec())];
                *hook = write(&parts);
            }
        }
    }
}

fn expression(bytes: &[u8]) -> Expression {
    let attributes = read(bytes);
    let data = attributes.iter().find(|(kind, _)| *kind == EXPRESSION_DATA).map(|(_, data)| read(data));
    Expression { name: text(&attributes, EXPRESSION_NAME), data: data.unwrap_or_default() }
}

fn item(expression: &Expression) -> Vec<u8> {
    let Expression { name, data } = expression;
    let name = [name.as_bytes(), &[0]].concat();
    write(&vec![(EXPRESSION_NAME, name), (EXPRESSION_DATA, write(data))])
}

fn text(attributes: &Attributes, kind: u16) -> String {
    let found = attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| value.as_slice());
    String::from_utf8_lossy(found.unwrap_or_default()).trim_end_matches('\0').to_owned()
}

/// Reads attributes one after the other.
pub fn read(mut bytes: &[u8]) -> Attributes {
    let mut out = Vec::new();
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        out.push((u16::from_ne_bytes([bytes[2], bytes[3]]), bytes[4..len].to_vec()));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

/// Writes attributes one after the other.
pub fn write(attributes: &Attributes) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, value) in attributes {
        let len = u16::try_from(value.len() + 4).expect("what was read is not longer");
        out.extend_from_slice(&len.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
