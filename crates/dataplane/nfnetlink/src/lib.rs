//! Messages of nfnetlink (`linux/netfilter/nfnetlink.h`), the kernel's protocol for nf_tables, NFLOG and conntrack: their
//! headers and attributes, read and written. Numbers of the headers are in host order, those of attributes in network order.
//!
//! Invariant: attributes are padded to four bytes and none is longer than its 16-bit length can say; whatever arrives,
//! reading ends at what is cut off and never panics.

/// The type of an answer, of each of netlink's protocols.
pub const ERROR: u16 = 2;
/// The type of the end of a list.
pub const DONE: u16 = 3;

/// Flags of a request.
pub mod flag {
    /// Every request has it.
    pub const REQUEST: u16 = 1;
    /// It is to be answered.
    pub const ACK: u16 = 4;
    /// It asks for a list.
    pub const DUMP: u16 = 0x300;
}

/// Writes messages into one buffer.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Writes an attribute of less than 64 KiB.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("callers split what could grow past 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Writes an attribute that is a number in network order.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Writes an attribute that is a NUL-terminated string.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// Writes an attribute that holds others.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.put(kind, &[]);
        inner(self);
        let len = u16::try_from(self.bytes.len() - start).expect("callers split what could grow past 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Writes a message: netlink and nfnetlink headers and what `inner` adds.
    pub fn message(&mut self, head: Head, inner: impl FnOnce(&mut Writer)) {
        let Head { kind, flags, seq, family, resource } = head;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        inner(self);
        let len = u32::try_from(self.bytes.len() - start).expect("batches stay far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The headers of a message to nfnetlink.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Subsystem and type.
    pub kind: u16,
    /// See [`flag`]; subsystems have more.
    pub flags: u16,
    /// Number of the request, which its answers have too.
    pub seq: u32,
    /// Address family.
    pub family: u8,
    /// What the subsystem says: a group of NFLOG, a subsystem's own number.
    pub resource: u16,
}

/// A message of its own with these attributes.
pub fn message(head: Head, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(head, |writer| attributes.iter().for_each(|(kind, value)| writer.put(*kind, value)));
    writer.bytes
}

/// A message as received, behind its netlink header.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Subsystem and type, or [`ERROR`] or [`DONE`].
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// Number of the request that it answers.
    pub seq: u32,
    /// The socket that it is for.
    pub port: u32,
    /// What follows netlink's header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The address family in the nfnetlink header.
    pub fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// The resource in the nfnetlink header.
    pub fn resource(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.get(2..4)?.try_into().ok()?))
    }

    /// The error number of an [`ERROR`]; 0 acknowledges.
    pub fn errno(&self) -> Option<i32> {
        Some(u32_at(self.payload, 0)?.cast_signed().saturating_neg())
    }

    /// The attributes behind the nfnetlink header.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }
}

/// Splits a datagram into messages; ends early at what is cut off.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let whole = bytes.get(..len).filter(|_| len >= 16)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(whole, 4)?,
            flags: u16_at(whole, 6)?,
            seq: u32_at(whole, 8)?,
            port: u32_at(whole, 12)?,
            payload: &whole[16..],
        })
    })
}

/// An iterator over attributes; ends early at what is cut off.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(/** Their bytes. */ pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of a kind; none if there is no such attribute.
    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A number in network order.
    pub fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A string without its NUL.
    pub fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

/// A number in host order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                let _ = (message.family(), message.resource(), message.errno(), message.attributes().count());
            }
            let _ = Attributes(&bytes).nested(1).text(2);
            let _ = Attributes(&bytes).be32(3);
        }

        #[test]
        fn what_is_written_reads_back(values in proptest::collection::vec((1u16..100, any::<Vec<u8>>()), 0..8)) {
            let mut writer = Writer::default();
            let head = Head { kind: 7, flags: 1, seq: 9, family: 2, resource: 10 };
            writer.message(head, |w| w.nest(5, |w| values.iter().for_each(|(k, v)| w.put(*k, v))));
            let read: Vec<_> = messages(&writer.bytes).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!((read[0].kind, read[0].flags, read[0].family()), (7, 1, Some(2)));
            prop_assert_eq!((read[0].seq, read[0].resource()), (9, Some(10)));
            let inner: Vec<_> = read[0].attributes().nested(5).map(|(k, v)| (k, v.to_vec())).collect();
            prop_assert_eq!(inner, values);
        }
    }
}
