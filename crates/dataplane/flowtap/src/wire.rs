//! Netlink framing as far as nfnetlink's smaller protocols need it.
//!
//! Invariant: whatever arrives, reading ends at what is cut off and never panics.

/// Netlink's own type of an answer.
pub(crate) const ERROR: u16 = 2;
/// Netlink's own type of the end of a list.
pub(crate) const DONE: u16 = 3;
/// The flags of a request for a list.
pub(crate) const DUMP: u16 = 0x300;
const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// A request to nfnetlink that is to be acknowledged. `family` and `resource` as the subsystem wants them.
pub(crate) fn request(kind: u16, seq: u32, family: u8, resource: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    request_with(ACK, kind, seq, family, resource, attributes)
}

/// The same with other flags than that it is to be acknowledged.
pub(crate) fn request_with(
    flags: u16,
    kind: u16,
    seq: u32,
    family: u8,
    resource: u16,
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    for (kind, value) in attributes {
        let len = u16::try_from(value.len() + 4).expect("attributes here are a few bytes");
        bytes.extend_from_slice(&len.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(bytes.len()).expect("requests here are short");
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// A message as received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The resource in nfnetlink's header: the group of NFLOG.
    pub(crate) fn resource(&self) -> Option<u16> {
        Some(u16::from_be_bytes(self.payload.get(2..4)?.try_into().ok()?))
    }

    /// The attributes behind nfnetlink's header.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }

    /// The error number of an answer; 0 acknowledges.
    pub(crate) fn errno(&self) -> Option<i32> {
        Some(i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?).saturating_neg())
    }
}

/// Splits a datagram into messages.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let whole = bytes.get(..len).filter(|_| len >= 16)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: u16_at(whole, 4)?, seq: u32_at(whole, 8)?, payload: &whole[16..] })
    })
}

/// An iterator over attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

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
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// A number in network order.
    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A string without its NUL; what is no UTF-8 is replaced.
    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
