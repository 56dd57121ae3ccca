//! An encoder gone wrong: another operator, offset, length, byte order or verdict than meant.

use super::wire::{Attributes, Expression, Wire, read, write};

/// Attribute numbers of `linux/netfilter/nf_tables.h`, per kind of expression.
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const KEY_NFPROTO: u32 = 15;
const KEY_L4PROTO: u32 = 16;
const KEY_IIFNAME: u32 = 6;
const KEY_OIFNAME: u32 = 7;
const CMP_OP: u16 = 2;
const CMP_DATA: u16 = 3;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const RANGE_OP: u16 = 2;
const RANGE_FROM: u16 = 3;
const RANGE_TO: u16 = 4;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const LOOKUP_DREG: u16 = 3;
const LOOKUP_FLAGS: u16 = 5;
const IMMEDIATE_DATA: u16 = 2;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

fn each(wire: &mut Wire, name: &str, change: impl Fn(&mut Expression)) {
    wire.rules(|_, rule| rule.iter_mut().filter(|e| e.name == name).for_each(&change));
}

fn of_policy(chain: &str) -> bool {
    chain.starts_with("cali-p")
}

/// Comparisons that follow such an expression, in the chains of policies.
fn compared_after(wire: &mut Wire, before: impl Fn(&Expression) -> bool, change: impl Fn(&mut Expression)) {
    wire.rules(|chain, rule| {
        for at in 1..rule.len() {
            if of_policy(chain) && rule[at].name == "cmp" && before(&rule[at - 1]) {
                change(&mut rule[at]);
            }
        }
    });
}

fn is_load(expression: &Expression, base: u32, len: u32) -> bool {
    expression.name == "payload"
        && expression.number(PAYLOAD_BASE) == Some(base)
        && expression.number(PAYLOAD_LEN) == Some(len)
}

/// Changes the offset of what is loaded.
fn offset(wire: &mut Wire, base: u32, change: impl Fn(u32, u32) -> u32) {
    each(wire, "payload", |load| {
        let (Some(offset), Some(len)) = (load.number(PAYLOAD_OFFSET), load.number(PAYLOAD_LEN)) else { return };
        if load.number(PAYLOAD_BASE) == Some(base) {
            load.set(PAYLOAD_OFFSET, change(offset, len));
        }
    });
}

fn key(wire: &mut Wire, from: u32, to: u32) {
    each(wire, "meta", |meta| {
        if meta.number(META_KEY) == Some(from) && meta.number(META_SREG).is_none() {
            meta.set(META_KEY, to);
        }
    });
}

/// The verdicts of the chains that `wanted` names.
fn verdict(wire: &mut Wire, wanted: impl Fn(&str) -> bool, from: i32, to: i32) {
    wire.rules(|chain, rule| {
        for immediate in rule.iter_mut().filter(|e| wanted(chain) && e.name == "immediate") {
            for (_, data) in immediate.data.iter_mut().filter(|(kind, _)| *kind == IMMEDIATE_DATA) {
                let mut outer = read(data);
                for (_, inner) in outer.iter_mut().filter(|(kind, _)| *kind == VERDICT) {
                    let mut parts = read(inner);
                    for (_, code) in parts.iter_mut().filter(|(_, value)| **value == from.to_be_bytes()) {
                        *code = to.to_be_bytes().to_vec();
                    }
                    *inner = write(&parts);
                }
                *data = write(&outer);
            }
        }
    });
}

/// Changes the keys of elements that have this length; `end` tells the ends of ranges.
fn keys(wire: &mut Wire, lens: &[usize], change: impl Fn(&mut [u8], bool)) {
    wire.elements(|item: &mut Attributes| {
        let end = item.iter().any(|(kind, _)| *kind == ELEMENT_FLAGS);
        for (_, nested) in item.iter_mut().filter(|(kind, _)| *kind == ELEMENT_KEY) {
            let mut inner = read(nested);
            for (_, key) in inner.iter_mut().filter(|(kind, key)| *kind == VALUE && lens.contains(&key.len())) {
                change(key, end);
            }
            *nested = write(&inner);
        }
    });
}

/// Ends of ranges move by one.
fn move_ends(wire: &mut Wire, lens: &[usize]) {
    keys(wire, lens, |key, end| {
        if end {
            add_one(key);
        }
    });
}

fn turn_round(cmp: &mut Expression) {
    cmp.set(CMP_OP, if cmp.number(CMP_OP) == Some(EQUAL) { NOT_EQUAL } else { EQUAL });
}

fn add_one(value: &mut [u8]) {
    for byte in value.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

fn drop_one(value: &mut [u8]) {
    for byte in value.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 255 {
            return;
        }
    }
}

fn is_workload(chain: &str) -> bool {
    ["cali-tw-", "cali-fw-", "cali-gi-", "cali-go-"].iter().any(|prefix| chain.starts_with(prefix))
}

/// Every mutant of the encoder.
pub(super) const ALL: [(&str, fn(&mut Wire)); 38] = [
    ("comparisons of ports are turned round", |w| {
        compared_after(w, |e| is_load(e, TRANSPORT, 2), turn_round);
    }),
    ("protocols are compared for difference", |w| {
        compared_after(w, |e| e.number(META_KEY) == Some(KEY_L4PROTO), |cmp| cmp.set(CMP_OP, NOT_EQUAL));
    }),
    ("what must differ must be equal", |w| {
        w.rules(|chain, rule| {
            for cmp in rule.iter_mut().filter(|e| of_policy(chain) && e.name == "cmp") {
                cmp.set(CMP_OP, EQUAL);
            }
        });
    }),
    ("comparisons of IPv4 addresses are turned round", |w| {
        compared_after(w, |e| is_load(e, NETWORK, 4), turn_round);
    }),
    ("comparisons of IPv6 addresses are turned round", |w| {
        compared_after(w, |e| is_load(e, NETWORK, 16), turn_round);
    }),
    ("ports stand in the wrong byte order", |w| {
        compared_after(w, |e| is_load(e, TRANSPORT, 2), |cmp| cmp.edit(CMP_DATA, <[u8]>::reverse));
    }),
    ("protocols are a number off", |w| {
        compared_after(w, |e| e.number(META_KEY) == Some(KEY_L4PROTO), |cmp| cmp.edit(CMP_DATA, add_one));
    }),
    ("the families have each other's numbers", |w| {
        compared_after(
            w,
            |e| e.number(META_KEY) == Some(KEY_NFPROTO),
            |cmp| cmp.edit(CMP_DATA, |value| value.iter_mut().for_each(|byte| *byte ^= 2 ^ 10)),
        );
    }),
    ("ranges are left out, not in", |w| each(w, "range", |e| e.set(RANGE_OP, 1 - e.number(RANGE_OP).unwrap_or(0)))),
    ("ranges of ports begin a number late", |w| each(w, "range", |e| e.edit(RANGE_FROM, add_one))),
    ("ranges of ports begin a number early", |w| each(w, "range", |e| e.edit(RANGE_FROM, drop_one))),
    ("ranges of ports end a number early", |w| each(w, "range", |e| e.edit(RANGE_TO, drop_one))),
    ("ranges of ports end a number late", |w| each(w, "range", |e| e.edit(RANGE_TO, add_one))),
    ("both ports are the source port", |w| offset(w, TRANSPORT, |offset, len| if len == 2 { 0 } else { offset })),
    ("both ports are the destination port", |w| offset(w, TRANSPORT, |offset, len| if len == 2 { 2 } else { offset })),
    ("ICMP types are looked for a byte later", |w| {
        offset(w, TRANSPORT, |offset, len| if len == 1 { offset + 1 } else { offset });
    }),
    ("both IPv4 addresses are the source", |w| offset(w, NETWORK, |offset, len| if len == 4 { 12 } else { offset })),
    ("both IPv4 addresses are the destination", |w| {
        offset(w, NETWORK, |offset, len| if len == 4 { 16 } else { offset });
    }),
    ("both IPv6 addresses are the source", |w| offset(w, NETWORK, |offset, len| if len == 16 { 8 } else { offset })),
    ("both IPv6 addresses are the destination", |w| {
        offset(w, NETWORK, |offset, len| if len == 16 { 24 } else { offset });
    }),
    ("the protocol is taken for the family", |w| key(w, KEY_NFPROTO, KEY_L4PROTO)),
    ("the incoming interface is taken for the outgoing one", |w| key(w, KEY_OIFNAME, KEY_IIFNAME)),
    ("the outgoing interface is taken for the incoming one", |w| {
        w.rules(|chain, rule| {
            for meta in rule.iter_mut().filter(|e| chain.contains("FORWARD") && e.name == "meta") {
                if meta.number(META_KEY) == Some(KEY_IIFNAME) {
                    meta.set(META_KEY, KEY_OIFNAME);
                }
            }
        });
    }),
    ("masks lack their last byte", |w| {
        w.rules(|chain, rule| {
            for mask in rule.iter_mut().filter(|e| of_policy(chain) && e.name == "bitwise") {
                mask.edit(BITWISE_MASK, |bytes| {
                    if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
                        bytes[at] = 0;
                    }
                });
            }
        });
    }),
    ("a mark sets nothing", |w| {
        each(w, "bitwise", |e| e.edit(BITWISE_XOR, |value| value.fill(0)));
    }),
    ("lookups are never turned round", |w| {
        each(w, "lookup", |e| e.set(LOOKUP_FLAGS, 0));
    }),
    ("lookups are always turned round", |w| {
        each(w, "lookup", |e| {
            if e.number(LOOKUP_DREG).is_none() {
                e.set(LOOKUP_FLAGS, 1);
            }
        });
    }),
    ("policies drop what they should accept", |w| verdict(w, of_policy, ACCEPT, DROP)),
    ("policies accept what they should drop", |w| verdict(w, of_policy, DROP, ACCEPT)),
    ("what returns accepts", |w| verdict(w, of_policy, RETURN, ACCEPT)),
    ("what returns drops", |w| verdict(w, of_policy, RETURN, DROP)),
    ("endpoints go where they should jump", |w| verdict(w, is_workload, JUMP, GOTO)),
    ("endpoints accept what they should drop", |w| verdict(w, is_workload, DROP, ACCEPT)),
    ("prefixes in sets end an address late", |w| move_ends(w, &[4, 16])),
    ("ranges in sets of ports end a number late", |w| move_ends(w, &[2])),
    ("ports in sets stand in the wrong byte order", |w| {
        keys(w, &[12, 24], |key, _| {
            let port = key.len() - 4;
            key.swap(port, port + 1);
        });
    }),
    ("protocols are missing in sets of ports of addresses", |w| {
        keys(w, &[12, 24], |key, _| {
            let protocol = key.len() - 8;
            key[protocol] = 0;
        });
    }),
    ("the rules for forwarded packets look at those to the host", |w| {
        w.hooks(|hook, priority| (if hook == 2 { 1 } else { hook }, priority));
    }),
];
