//! Netlink framing: message headers, acknowledgements with the kernel's explanation, attributes.
//!
//! Attributes are read one by one, so a value that the codec doesn't know never costs the whole message.

use netlink_packet_core::{Emitable, NLM_F_ACK_TLVS, NLM_F_CAPPED, NlaBuffer, NlasIterator};

const HEADER_LEN: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request that is ready to be framed; flags exclude `NLM_F_REQUEST` and `NLM_F_ACK`.
pub(crate) struct Request {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16, message: &impl Emitable) -> Request {
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Request { kind, flags, body }
    }

    pub(crate) fn framed_len(&self) -> usize {
        align(HEADER_LEN + self.body.len())
    }

    pub(crate) fn frame(&self, seq: u32, extra_flags: u16, out: &mut Vec<u8>) {
        let start = out.len();
        let len = HEADER_LEN + self.body.len();
        out.extend_from_slice(&u32::try_from(len).expect("a request is far below 4 GiB").to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | extra_flags).to_ne_bytes());
        out.extend_from_slice(&seq.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&self.body);
        out.resize(start + align(len), 0);
    }
}

/// One message as received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) body: &'a [u8],
}

/// Splits a datagram into messages; stops at the first that is cut off.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
        if len < HEADER_LEN || len > datagram.len() {
            return None;
        }
        let frame = Frame {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            seq: u32_at(datagram, 8)?,
            body: &datagram[HEADER_LEN..len],
        };
        datagram = &datagram[align(len).min(datagram.len())..];
        Some(frame)
    })
}

/// A negative answer: the errno (positive) and the kernel's explanation, often empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) text: String,
}

/// Reads `NLMSG_ERROR`, or the status in `NLMSG_DONE`: `Ok` acknowledges.
pub(crate) fn status(frame: &Frame<'_>, with_request: bool) -> Result<(), Refusal> {
    let Some(code) = u32_at(frame.body, 0) else { return Ok(()) };
    let code = code.cast_signed();
    if code >= 0 {
        return Ok(());
    }
    let attributes_at = if !with_request {
        4
    } else if frame.flags & NLM_F_CAPPED != 0 {
        4 + HEADER_LEN
    } else {
        4 + align(u32_at(frame.body, 4).unwrap_or(0) as usize)
    };
    let mut text = String::new();
    if frame.flags & NLM_F_ACK_TLVS != 0 {
        for (kind, value) in attributes(frame.body.get(attributes_at..).unwrap_or_default()) {
            if kind == NLMSGERR_ATTR_MSG {
                text = string(value);
            }
        }
    }
    Err(Refusal { errno: code.checked_neg().unwrap_or(libc::EIO), text })
}

/// The attributes in a buffer, up to the first that is malformed.
pub(crate) fn attributes(buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(buffer).map_while(|nla: Result<NlaBuffer<&[u8]>, _>| {
        let nla = nla.ok()?;
        let (kind, len) = (nla.kind(), usize::from(nla.length()));
        Some((kind, nla.into_inner().get(4..len)?))
    })
}

/// Appends an attribute.
pub(crate) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).expect("an attribute is below 64 KiB: who writes it splits lists");
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(align(out.len()), 0);
}

/// A NUL-terminated text.
pub(crate) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_framed_is_split_again() {
        let mut out = Vec::new();
        for (kind, body) in [(16, vec![1, 2, 3]), (24, vec![]), (28, vec![9; 8])] {
            let request = Request { kind, flags: 4, body };
            let before = out.len();
            request.frame(7, 1, &mut out);
            assert_eq!(out.len() - before, request.framed_len());
        }
        let got: Vec<_> = frames(&out).map(|f| (f.kind, f.flags, f.seq, f.body.to_vec())).collect();
        assert_eq!(got, [(16, 5, 7, vec![1, 2, 3]), (24, 5, 7, vec![]), (28, 5, 7, vec![9; 8])]);
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut body = (-17i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER_LEN]);
        body.extend_from_slice(&9u16.to_ne_bytes());
        body.extend_from_slice(&NLMSGERR_ATTR_MSG.to_ne_bytes());
        body.extend_from_slice(b"dup\0\0\0\0\0");
        let frame = Frame { kind: 2, flags: NLM_F_CAPPED | NLM_F_ACK_TLVS, seq: 1, body: &body };
        assert_eq!(status(&frame, true), Err(Refusal { errno: 17, text: "dup".to_owned() }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for frame in frames(&bytes) {
                let _ = status(&frame, true);
                let _ = status(&frame, false);
                let _ = attributes(frame.body).count();
                let _ = crate::link_codec::parse(frame.body);
                let _ = crate::route_codec::parse(frame.body);
                let _ = crate::address::parse(frame.body);
                let _ = crate::neighbour::parse(frame.body);
                let _ = crate::rule::parse(frame.body);
                let _ = crate::vxlan::parse_vxlan(frame.body);
                let _ = crate::vxlan::parse_fdb(frame.body);
                crate::wireguard::read_device(frame.body, &mut crate::WireguardState::default());
            }
            let _ = crate::link_codec::parse(&bytes);
            let _ = crate::route_codec::parse(&bytes);
            let _ = crate::address::parse(&bytes);
            let _ = crate::neighbour::parse(&bytes);
            let _ = crate::rule::parse(&bytes);
            let _ = crate::vxlan::parse_vxlan(&bytes);
            let _ = crate::vxlan::parse_fdb(&bytes);
            crate::wireguard::read_device(&bytes, &mut crate::WireguardState::default());
        }
    }
}
