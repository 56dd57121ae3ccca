//! Shaping (tc): token buckets on links, and packets that arrive on a link sent through another one.
//!
//! Written by hand, as the codec knows none of it. Numbers are those of `linux/pkt_sched.h`, `linux/pkt_cls.h`.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use crate::link::check_name;
use crate::wire::{Request, attributes, put, string, u32_at};
use crate::{Error, Handle, Result};

const HEADER_LEN: usize = 20;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_PRATE64: u16 = 5;
const TBF_BURST: u16 = 6;
const TBF_PBURST: u16 = 7;
const ETHERNET: u8 = 1;
const U32_CLASSID: u16 = 1;
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const U32_TERMINAL: u8 = 1;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
const ACT_STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;
/// Every protocol (`ETH_P_ALL`), in network order.
const ALL_PROTOCOLS: u32 = 3 << 8;

/// A token bucket (tc-tbf) that holds packets of a link back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes per second.
    pub rate: u64,
    /// What the bucket holds, bytes. The kernel gives it back in another unit, so a listing has 0 here.
    pub burst: u32,
    /// What may wait beside what the bucket holds, bytes.
    pub limit: u32,
    /// The rate at which the bucket empties, bytes per second; 0: at once. More than `rate`.
    pub peak: u64,
    /// What may pass at once at that rate, bytes; 0 without it, and in a listing.
    pub peak_burst: u32,
}

/// How a link sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The link's index.
    pub link: u32,
    /// Its kind, such as `tbf` or `ingress`.
    pub kind: String,
    /// Its handle; the lower half is 0.
    pub handle: u32,
    /// Whether it is the link's first one.
    pub root: bool,
    /// What it does, if it is a token bucket.
    pub bucket: Option<TokenBucket>,
}

/// A filter that sends what arrives on a link out of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Its place among filters.
    pub priority: u16,
    /// Index of the other link; `None`: the filter does something else.
    pub to: Option<u32>,
}

fn header(link: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for field in [link, handle, parent, info] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    body
}

fn with_kind(mut body: Vec<u8>, kind: &str, options: &[u8]) -> Vec<u8> {
    put(&mut body, KIND, format!("{kind}\0").as_bytes());
    if !options.is_empty() {
        put(&mut body, OPTIONS, options);
    }
    body
}

/// `struct tc_ratespec`.
fn rate_spec(rate: u64) -> [u8; 12] {
    let mut out = [0; 12];
    out[1] = ETHERNET;
    // What does not fit is in an attribute of its own.
    out[8..].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    out
}

fn bucket_options(bucket: &TokenBucket) -> Vec<u8> {
    let TokenBucket { rate, burst, limit, peak, peak_burst } = *bucket;
    let mut parms = [rate_spec(rate), if peak == 0 { [0; 12] } else { rate_spec(peak) }].concat();
    // The kernel takes bucket and peak burst from attributes in bytes, so its own units can stay empty.
    for field in [limit, 0, 0] {
        parms.extend_from_slice(&field.to_ne_bytes());
    }
    let mut options = Vec::new();
    put(&mut options, TBF_PARMS, &parms);
    put(&mut options, TBF_BURST, &burst.to_ne_bytes());
    if rate > u64::from(u32::MAX) {
        put(&mut options, TBF_RATE64, &rate.to_ne_bytes());
    }
    if peak > 0 {
        put(&mut options, TBF_PBURST, &peak_burst.to_ne_bytes());
    }
    if peak > u64::from(u32::MAX) {
        put(&mut options, TBF_PRATE64, &peak.to_ne_bytes());
    }
    options
}

fn parse_qdisc(body: &[u8]) -> Option<Qdisc> {
    let (link, handle, parent) = (u32_at(body, 4)?, u32_at(body, 8)?, u32_at(body, 12)?);
    let mut qdisc = Qdisc { link, kind: String::new(), handle, root: parent == ROOT, bucket: None };
    let mut options: &[u8] = &[];
    for (kind, value) in attributes(body.get(HEADER_LEN..)?) {
        match kind {
            KIND => qdisc.kind = string(value),
            OPTIONS => options = value,
            _ => {}
        }
    }
    if qdisc.kind == "tbf" {
        qdisc.bucket = parse_bucket(options);
    }
    Some(qdisc)
}

fn parse_bucket(options: &[u8]) -> Option<TokenBucket> {
    let find = |wanted: u16| attributes(options).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let parms = find(TBF_PARMS)?;
    let wide = |kind| find(kind).and_then(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?)));
    Some(TokenBucket {
        rate: wide(TBF_RATE64).unwrap_or(u64::from(u32_at(parms, 8)?)),
        burst: 0,
        limit: u32_at(parms, 24)?,
        peak: wide(TBF_PRATE64).unwrap_or(u64::from(u32_at(parms, 20)?)),
        peak_burst: 0,
    })
}

fn redirect_options(to: u32) -> Vec<u8> {
    // `struct tc_mirred`
    let mut mirred = Vec::new();
    for field in [0, 0, ACT_STOLEN, 0, 0, EGRESS_REDIRECT, to] {
        mirred.extend_from_slice(&field.to_ne_bytes());
    }
    let (mut parms, mut action, mut list) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut parms, MIRRED_PARMS, &mirred);
    put(&mut action, ACT_KIND, b"mirred\0");
    put(&mut action, ACT_OPTIONS, &parms);
    put(&mut list, 1, &action);
    // `struct tc_u32_sel` with one key that every packet has.
    let mut selector = vec![0; 32];
    (selector[0], selector[2]) = (U32_TERMINAL, 1);
    let mut options = Vec::new();
    put(&mut options, U32_CLASSID, &0x1_0001u32.to_ne_bytes());
    put(&mut options, U32_SEL, &selector);
    put(&mut options, U32_ACT, &list);
    options
}

/// `None`: a table of filters, not a filter.
fn parse_redirect(body: &[u8]) -> Option<Redirect> {
    let priority = u16::try_from(u32_at(body, 16)? >> 16).ok()?;
    let mut kind = String::new();
    let mut to = None;
    let mut acts = false;
    for (attribute, value) in attributes(body.get(HEADER_LEN..)?) {
        match attribute {
            KIND => kind = string(value),
            OPTIONS => {
                let actions = attributes(value).find(|(kind, _)| *kind == U32_ACT).map(|(_, value)| value);
                acts = actions.is_some();
                to = actions.and_then(mirred_target);
            }
            _ => {}
        }
    }
    (kind != "u32" || acts).then_some(Redirect { priority, to })
}

fn mirred_target(actions: &[u8]) -> Option<u32> {
    let (_, action) = attributes(actions).next()?;
    let find = |bytes, wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if string(find(action, ACT_KIND)?) != "mirred" {
        return None;
    }
    let parms = find(find(action, ACT_OPTIONS)?, MIRRED_PARMS)?;
    (u32_at(parms, 20)? == EGRESS_REDIRECT).then(|| u32_at(parms, 24))?
}

/// The kernel answers that a kind of qdisc, filter or action is not found.
fn kind_is_unknown(error: Error) -> Error {
    match error {
        Error::NotFound { doing, detail } if !detail.is_empty() => Error::Unsupported { doing, detail },
        other => other,
    }
}

impl Handle {
    /// How all links send.
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>> {
        let request = Request { kind: libc::RTM_GETQDISC, flags: 0, body: header(0, 0, 0, 0) };
        self.list(&request, parse_qdisc, "list qdiscs")
    }

    /// Puts a token bucket in the first place of a link. [`Error::Unsupported`]: the kernel has none.
    pub fn set_token_bucket(&mut self, link: u32, handle: u32, bucket: &TokenBucket) -> Result<()> {
        let body = with_kind(header(link, handle, ROOT, 0), "tbf", &bucket_options(bucket));
        let request = Request { kind: libc::RTM_NEWQDISC, flags: NLM_F_CREATE | NLM_F_REPLACE, body };
        self.one(request, || format!("limit the rate of link {link}")).map_err(kind_is_unknown)
    }

    /// Takes what is in the first place of a link away, if it has this handle.
    pub fn delete_root_qdisc(&mut self, link: u32, handle: u32) -> Result<()> {
        let request = Request { kind: libc::RTM_DELQDISC, flags: 0, body: header(link, handle, ROOT, 0) };
        self.one(request, || format!("end the limit of link {link}"))
    }

    /// Lets a link have filters for what arrives on it. It may have them already.
    pub fn add_ingress_qdisc(&mut self, link: u32) -> Result<()> {
        let body = with_kind(header(link, INGRESS_HANDLE, INGRESS, 0), "ingress", &[]);
        let request = Request { kind: libc::RTM_NEWQDISC, flags: NLM_F_CREATE | NLM_F_EXCL, body };
        match self.one(request, || format!("filter what arrives on link {link}")) {
            Err(Error::Exists { .. }) => Ok(()),
            other => other.map_err(kind_is_unknown),
        }
    }

    /// Takes all filters for what arrives on a link away.
    pub fn delete_ingress_qdisc(&mut self, link: u32) -> Result<()> {
        let request = Request { kind: libc::RTM_DELQDISC, flags: 0, body: header(link, INGRESS_HANDLE, INGRESS, 0) };
        self.one(request, || format!("end the filters of link {link}"))
    }

    /// The filters for what arrives on a link, in no order; of a link that has none, none.
    pub fn redirects(&mut self, link: u32) -> Result<Vec<Redirect>> {
        let body = header(link, 0, INGRESS_HANDLE, 0);
        let request = Request { kind: libc::RTM_GETTFILTER, flags: 0, body };
        match self.list(&request, parse_redirect, "list filters") {
            // Without the qdisc the kernel finds no place for filters.
            Err(Error::NotFound { .. } | Error::Invalid { .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Sends all that arrives on a link out of another one. [`Error::Exists`]: the priority is taken.
    pub fn add_redirect(&mut self, link: u32, priority: u16, to: u32) -> Result<()> {
        let info = u32::from(priority) << 16 | ALL_PROTOCOLS;
        let body = with_kind(header(link, 0, INGRESS_HANDLE, info), "u32", &redirect_options(to));
        let request = Request { kind: libc::RTM_NEWTFILTER, flags: NLM_F_CREATE | NLM_F_EXCL, body };
        self.one(request, || format!("send what arrives on link {link} through link {to}")).map_err(kind_is_unknown)
    }

    /// Takes the filters of one priority away.
    pub fn delete_redirect(&mut self, link: u32, priority: u16) -> Result<()> {
        let body = header(link, 0, INGRESS_HANDLE, u32::from(priority) << 16 | ALL_PROTOCOLS);
        let request = Request { kind: libc::RTM_DELTFILTER, flags: 0, body };
        self.one(request, || format!("end filter {priority} of link {link}"))
    }

    /// Makes a device through which packets of other links are sent to be held back (ifb), set up; returns its index.
    /// [`Error::Unsupported`]: the kernel has no such.
    pub fn create_ifb(&mut self, name: &str, mtu: u32) -> Result<u32> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
        let request = Request::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message);
        self.one(request, || format!("create ifb device {name}"))?;
        Ok(self.link(name)?.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_reads_back(rate in 1u64.., limit: u32, peak: u64, burst: u32, peak_burst: u32) {
            let bucket = TokenBucket { rate, burst, limit, peak, peak_burst };
            let body = with_kind(header(7, 0x0ca1_0000, ROOT, 0), "tbf", &bucket_options(&bucket));
            let read = parse_qdisc(&body).expect("whole");
            prop_assert_eq!((read.link, read.handle, read.root, &*read.kind), (7, 0x0ca1_0000, true, "tbf"));
            prop_assert_eq!(read.bucket, Some(TokenBucket { burst: 0, peak_burst: 0, ..bucket }));
        }

        #[test]
        fn a_redirect_reads_back(priority: u16, to: u32) {
            let info = u32::from(priority) << 16 | ALL_PROTOCOLS;
            let body = with_kind(header(7, 0, INGRESS_HANDLE, info), "u32", &redirect_options(to));
            prop_assert_eq!(parse_redirect(&body), Some(Redirect { priority, to: Some(to) }));
        }

        #[test]
        fn whatever_arrives_is_read_without_a_panic(noise in proptest::collection::vec(any::<u8>(), 0..120), cut: usize) {
            let body = with_kind(header(7, 0, INGRESS_HANDLE, 9), "u32", &redirect_options(3));
            let bucket = TokenBucket { rate: 1 << 40, burst: 1, limit: 1, peak: 1 << 41, peak_burst: 1 };
            let tbf = with_kind(header(7, 0, ROOT, 0), "tbf", &bucket_options(&bucket));
            for mut bytes in [noise.clone(), body, tbf] {
                let at = cut % (bytes.len() + 1);
                bytes.truncate(at);
                bytes.extend(&noise);
                let _ = (parse_qdisc(&bytes), parse_redirect(&bytes));
            }
        }
    }
}
