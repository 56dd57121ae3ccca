//! BFD control packets (RFC 5880 section 4.1), without authentication.
//!
//! Invariant: what parses passed every check of section 6.8.6 that needs no session.

use crate::wire::Reader;

/// Bytes of a packet without authentication.
pub const PACKET_LEN: usize = 24;

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BfdState {
    /// Somebody switched it off.
    AdminDown,
    /// The other side is not heard.
    Down,
    /// The other side is heard, and does not know yet.
    Init,
    /// Both hear each other.
    Up,
}

impl BfdState {
    fn from_code(code: u8) -> BfdState {
        match code & 3 {
            0 => BfdState::AdminDown,
            1 => BfdState::Down,
            2 => BfdState::Init,
            _ => BfdState::Up,
        }
    }

    fn code(self) -> u8 {
        match self {
            BfdState::AdminDown => 0,
            BfdState::Down => 1,
            BfdState::Init => 2,
            BfdState::Up => 3,
        }
    }

    /// The word that people read.
    pub fn name(self) -> &'static str {
        match self {
            BfdState::AdminDown => "AdminDown",
            BfdState::Down => "Down",
            BfdState::Init => "Init",
            BfdState::Up => "Up",
        }
    }
}

/// A control packet. Intervals are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdPacket {
    /// Why the sender's session went down last.
    pub diagnostic: u8,
    /// The sender's state.
    pub state: BfdState,
    /// The sender wants an answer at once.
    pub poll: bool,
    /// This is that answer.
    pub last: bool,
    /// So many intervals of silence mean that the sender is gone; never 0.
    pub multiplier: u8,
    /// The sender's name for the session; never 0.
    pub mine: u32,
    /// Our name for it, or 0.
    pub yours: u32,
    /// How often the sender wants to send.
    pub desired_min_tx: u32,
    /// How often the sender can take packets; 0: it wants none.
    pub required_min_rx: u32,
}

impl BfdPacket {
    /// Reads a packet; `None` if it is to be dropped.
    pub fn parse(bytes: &[u8]) -> Option<BfdPacket> {
        let mut reader = Reader::new(bytes);
        let (head, flags, multiplier, length) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let (mine, yours) = (reader.u32()?, reader.u32()?);
        let (desired_min_tx, required_min_rx, _echo) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let state = BfdState::from_code(flags >> 6);
        let (poll, last) = (flags & 0x20 != 0, flags & 0x10 != 0);
        let (authenticated, multipoint) = (flags & 0x04 != 0, flags & 0x01 != 0);
        let length = usize::from(length);
        let nameless = yours == 0 && !matches!(state, BfdState::Down | BfdState::AdminDown);
        let sound = head >> 5 == 1
            && (PACKET_LEN..=bytes.len()).contains(&length)
            && multiplier > 0
            && mine != 0
            && !(authenticated || multipoint || nameless);
        let diagnostic = head & 0x1f;
        sound.then_some(BfdPacket {
            diagnostic,
            state,
            poll,
            last,
            multiplier,
            mine,
            yours,
            desired_min_tx,
            required_min_rx,
        })
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let BfdPacket { diagnostic, state, poll, last, multiplier, mine, yours, desired_min_tx, required_min_rx } =
            self;
        let flags = state.code() << 6 | u8::from(*poll) << 5 | u8::from(*last) << 4;
        let mut out = [0; PACKET_LEN];
        out[..4].copy_from_slice(&[1 << 5 | diagnostic & 0x1f, flags, *multiplier, PACKET_LEN as u8]);
        for (at, value) in [mine, yours, desired_min_tx, required_min_rx].into_iter().enumerate() {
            out[4 + at * 4..8 + at * 4].copy_from_slice(&value.to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> BfdPacket {
        BfdPacket {
            diagnostic: 3,
            state: BfdState::Up,
            poll: true,
            last: false,
            multiplier: 3,
            mine: 7,
            yours: 9,
            desired_min_tx: 50_000,
            required_min_rx: 60_000,
        }
    }

    #[test]
    fn a_packet_round_trips_and_every_fault_drops_it() {
        let good = sample().encode();
        assert_eq!(BfdPacket::parse(&good), Some(sample()));
        // Version, authentication, multipoint, multiplier, length, my name.
        for (at, value) in [(0, 0x40), (1, 0xc4), (1, 0xc1), (2, 0), (3, 23), (3, 25), (7, 0)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(BfdPacket::parse(&bad), None, "byte {at} = {value}");
        }
        assert_eq!(BfdPacket::parse(&BfdPacket { yours: 0, ..sample() }.encode()), None);
        assert_eq!(BfdPacket::parse(&good[..23]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(packet) = BfdPacket::parse(&bytes) {
                prop_assert_eq!(BfdPacket::parse(&packet.encode()), Some(packet));
            }
        }
    }
}
