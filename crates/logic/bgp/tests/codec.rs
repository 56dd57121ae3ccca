//! The codec: what is written is read back, and no bytes whatever make it panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tortie_bgp::attribute::parse::{Context, Parsed, parse};
use tortie_bgp::attribute::{Aggregator, AsPath, Attributes, Origin, Segment, SegmentKind, Unknown};
use tortie_bgp::message::notification::Notification;
use tortie_bgp::message::open::Open;
use tortie_bgp::message::update::{Update, encode_announcements, encode_withdrawals, end_of_rib};
use tortie_bgp::message::{Kind, MAX_LEN, split_frame};
use tortie_net::{AsNumber, Family, IpNet, Ipv4Net, Ipv6Net};

fn prefix(family: Family) -> BoxedStrategy<IpNet> {
    match family {
        Family::V4 => (any::<u32>(), 0..=32_u8)
            .prop_map(|(addr, bits)| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(addr), bits).expect("in range").trunc()))
            .boxed(),
        Family::V6 => (any::<u128>(), 0..=128_u8)
            .prop_map(|(addr, bits)| IpNet::V6(Ipv6Net::new(Ipv6Addr::from(addr), bits).expect("in range").trunc()))
            .boxed(),
    }
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![Just(SegmentKind::Set), Just(SegmentKind::Sequence)];
    let members = vec(any::<u32>().prop_map(AsNumber), 1..20);
    let segment = (kind, members).prop_map(|(kind, members)| Segment { kind, members: members.into() });
    vec(segment, 0..4).prop_map(|segments| AsPath(segments.into()))
}

fn attributes(family: Family) -> impl Strategy<Value = Attributes> {
    let next_hop = match family {
        Family::V4 => (1_u8..224, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d])).boxed(),
        Family::V6 => any::<u128>().prop_map(|addr| IpAddr::V6(addr.into())).boxed(),
    };
    let aggregator =
        (any::<u32>(), any::<u32>()).prop_map(|(asn, id)| Aggregator { asn: AsNumber(asn), router: id.into() });
    let unknown = option::of((200_u8..=255, vec(any::<u8>(), 0..300)));
    let lists = (vec(any::<u32>(), 0..80), vec(any::<[u32; 3]>(), 0..5), vec(any::<u32>(), 0..5));
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let numbers = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>()), any::<bool>());
    (next_hop, origin, as_path(), numbers, option::of(aggregator), lists, unknown).prop_map(
        |(next_hop, origin, as_path, (med, local_pref, originator, atomic), aggregator, lists, unknown)| Attributes {
            next_hop,
            origin,
            as_path,
            med,
            local_pref,
            atomic_aggregate: atomic,
            aggregator,
            communities: lists.0.into(),
            large_communities: lists.1.into(),
            originator_id: originator.map(Ipv4Addr::from),
            cluster_list: lists.2.into(),
            unknown: unknown.into_iter().map(|(code, value)| Unknown { code, value: value.into() }).collect(),
        },
    )
}

/// Reads a stream of UPDATEs: announced with their attributes, and withdrawn.
fn read_all(mut stream: &[u8], context: Context) -> (Vec<(IpNet, Attributes)>, Vec<IpNet>) {
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    while let Some((frame, used)) = split_frame(stream).expect("a good header") {
        assert!(used <= MAX_LEN);
        assert_eq!(frame.kind, Kind::Update);
        stream = &stream[used..];
        let update = Update::split(frame.body).expect("parts");
        withdrawn.extend(update.withdrawn);
        let parsed = parse(update.attributes, context).expect("attributes");
        withdrawn.extend(parsed.unreach.into_iter().flatten());
        let with = |parsed: &Parsed<'_>, next_hop| Attributes { next_hop, ..parsed.attributes.clone() };
        if let Some(reach) = parsed.reach {
            assert_eq!(parsed.announce_fault(false), None);
            announced.extend(reach.prefixes.map(|prefix| (prefix, with(&parsed, reach.next_hop))));
        }
        if !update.announced.is_empty() {
            assert_eq!(parsed.announce_fault(true), None);
            let next_hop = IpAddr::V4(parsed.next_hop.expect("checked"));
            announced.extend(update.announced.map(|prefix| (prefix, with(&parsed, next_hop))));
        }
    }
    assert!(stream.is_empty());
    (announced, withdrawn)
}

fn round_trip(family: Family, attributes: &Attributes, prefixes: &[IpNet], as4: bool) {
    let context = Context { as4, external: false };
    let mut bytes = Vec::new();
    assert!(encode_announcements(family, attributes, prefixes, as4, &mut bytes));
    encode_withdrawals(family, prefixes, &mut bytes);
    let (announced, withdrawn) = read_all(&bytes, context);
    let expected: Vec<_> = prefixes.iter().map(|prefix| (*prefix, attributes.clone())).collect();
    assert_eq!(announced, expected);
    assert_eq!(withdrawn, prefixes);
}

proptest! {
    #[test]
    fn ipv4_routes_round_trip(attributes in attributes(Family::V4), prefixes in vec(prefix(Family::V4), 1..1500)) {
        round_trip(Family::V4, &attributes, &prefixes, true);
    }

    #[test]
    fn ipv6_routes_round_trip(attributes in attributes(Family::V6), prefixes in vec(prefix(Family::V6), 1..400)) {
        round_trip(Family::V6, &attributes, &prefixes, true);
    }

    /// Through a session of two-byte numbers nothing is lost either: AS4_PATH and AS4_AGGREGATOR carry the rest.
    #[test]
    fn two_byte_sessions_keep_long_numbers(
        members in vec(any::<u32>().prop_map(AsNumber), 1..20),
        asn in any::<u32>(),
        prefixes in vec(prefix(Family::V4), 1..10),
    ) {
        let attributes = Attributes {
            next_hop: IpAddr::from([10, 0, 0, 1]),
            as_path: AsPath::sequence(&members),
            aggregator: (asn != 23456).then_some(Aggregator { asn: AsNumber(asn), router: Ipv4Addr::LOCALHOST }),
            ..Attributes::default()
        };
        // A short aggregator beside a long path says by RFC 6793 that the long forms are out of date.
        prop_assume!(attributes.aggregator.is_none() || asn > 65535);
        round_trip(Family::V4, &attributes, &prefixes, false);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600), as4 in any::<bool>(), external in any::<bool>()) {
        let _ = split_frame(&bytes);
        let _ = Open::parse(&bytes);
        let _ = Notification::parse(&bytes).map(|notification| notification.to_string());
        if let Ok(update) = Update::split(&bytes) {
            let _ = (update.withdrawn.count(), update.announced.count());
        }
        if let Ok(parsed) = parse(&bytes, Context { as4, external }) {
            let _ = (parsed.reach.map(|reach| reach.prefixes.count()), parsed.unreach.map(Iterator::count));
        }
    }

    /// One wrong byte in the attributes of a good UPDATE costs at most its routes, unless it hits the multiprotocol
    /// attributes, which carry prefixes (RFC 7606 section 5.3).
    #[test]
    fn a_wrong_attribute_byte_is_no_reason_to_close(
        attributes in attributes(Family::V4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let prefixes = ["10.0.0.0/8".parse::<IpNet>().expect("literal")];
        let mut bytes = Vec::new();
        encode_announcements(Family::V4, &attributes, &prefixes, true, &mut bytes);
        let (frame, _) = split_frame(&bytes).expect("valid").expect("whole");
        let update = Update::split(frame.body).expect("parts");
        let mut list = update.attributes.to_vec();
        let at = at.index(list.len());
        list[at] = byte;
        if let Err(notification) = parse(&list, Context { as4: true, external: false }) {
            prop_assert!(list.contains(&14) || list.contains(&15), "{:?}", notification);
        }
    }
}

#[test]
fn end_of_rib_is_the_smallest_update() {
    let mut bytes = Vec::new();
    end_of_rib(Family::V4, &mut bytes);
    assert_eq!(bytes.len(), 23);
    bytes.clear();
    end_of_rib(Family::V6, &mut bytes);
    assert_eq!(bytes.len(), 29);
    let (frame, _) = split_frame(&bytes).expect("valid").expect("whole");
    let update = Update::split(frame.body).expect("parts");
    let parsed = parse(update.attributes, Context { as4: true, external: false }).expect("attributes");
    assert!(parsed.count() == 1 && parsed.unreach.is_some_and(|nlri| nlri.is_empty() && nlri.family() == Family::V6));
}
