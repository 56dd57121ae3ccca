//! BFD in asynchronous mode (RFC 5880), without a clock and without a socket: one session with one neighbour.
//!
//! State x the neighbour's state -> state (section 6.2):
//!
//! | state | AdminDown | Down | Init | Up   |
//! |-------|-----------|------|------|------|
//! | Down  | -         | Init | Up   | -    |
//! | Init  | Down      | -    | Up   | Up   |
//! | Up    | Down      | Down | -    | -    |
//!
//! Silence for the detection time leads to Down from Init and Up. A neighbour whose session is a new one leads to Down as
//! well, and that is no failure: its control plane began anew, as BGP knows by itself (RFC 5882 section 4.3.2). Such a one
//! names no session of ours and has no diagnostic; one that lost us has both, or the latter. Invariant: packets are as far apart as the neighbour
//! asks for, and at least a second until the session is up (section 6.8.3).

mod packet;

use std::time::{Duration, Instant};

pub use packet::{BfdPacket, BfdState, PACKET_LEN};

/// The interval while the session is not up.
const SLOW: Duration = Duration::from_secs(1);

const NO_DIAGNOSTIC: u8 = 0;
const DETECTION_TIME_EXPIRED: u8 = 1;
const NEIGHBOUR_SIGNALED_DOWN: u8 = 3;
const ADMINISTRATIVELY_DOWN: u8 = 7;

/// How fast a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdConfig {
    /// Interval of our packets while up, and the shortest that we take.
    pub interval: Duration,
    /// So many of our intervals of silence mean that we are gone; at least 1.
    pub multiplier: u8,
}

/// What is known of the neighbour.
#[derive(Clone, Copy, Debug)]
struct Remote {
    name: u32,
    desired_min_tx: Duration,
    required_min_rx: Duration,
    multiplier: u8,
}

/// A session.
#[derive(Debug)]
pub struct BfdSession {
    config: BfdConfig,
    name: u32,
    state: BfdState,
    diagnostic: u8,
    remote: Option<Remote>,
    /// The neighbour ended the session on purpose or began it anew, and it is not up again.
    excused: bool,
    /// A poll sequence is under way.
    polling: bool,
    /// The interval that the neighbour is told.
    told: Duration,
    /// While up, the shortest and the longest interval since the neighbour last confirmed one.
    unconfirmed: Option<(Duration, Duration)>,
    /// The neighbour polled.
    answer_due: bool,
    send_at: Instant,
    gone_at: Option<Instant>,
    dice: u64,
}

impl BfdSession {
    /// A session that is down. `name` is not 0 and unique among the sessions of this system; it also seeds the jitter.
    pub fn new(now: Instant, config: BfdConfig, name: u32) -> BfdSession {
        BfdSession {
            config,
            name,
            state: BfdState::Down,
            diagnostic: NO_DIAGNOSTIC,
            remote: None,
            excused: false,
            polling: false,
            told: SLOW,
            unconfirmed: None,
            answer_due: false,
            send_at: now,
            gone_at: None,
            dice: u64::from(name) << 17 | 0x9e37_79b9,
        }
    }

    /// The state.
    pub fn state(&self) -> BfdState {
        self.state
    }

    /// The state as whoever depends on the neighbour has to take it: `AdminDown` from when the neighbour ends the session
    /// on purpose or begins it anew until it is up again, as neither says anything of the path (RFC 5882 section 4.2).
    pub fn reported(&self) -> BfdState {
        if self.excused { BfdState::AdminDown } else { self.state }
    }

    /// Changes how fast the session is; if it is up, both sides agree on that first, so that neither looks dead (RFC 5880
    /// section 6.8.3).
    pub fn set_config(&mut self, now: Instant, config: BfdConfig) {
        let old = std::mem::replace(&mut self.config, config);
        if self.state != BfdState::Up || old == config {
            return;
        }
        let (least, most) = self.unconfirmed.unwrap_or((old.interval, old.interval));
        self.unconfirmed = Some((least.min(config.interval), most.max(config.interval)));
        (self.told, self.polling, self.send_at) = (config.interval, true, now);
        let gone_at = self.detection_time().map(|time| now + time);
        self.gone_at = self.gone_at.max(gone_at);
    }

    /// Ends the session on purpose; the packet says so to the neighbour (RFC 5880 section 6.8.16).
    pub fn withdraw(&mut self) -> BfdPacket {
        self.enter(BfdState::AdminDown, ADMINISTRATIVELY_DOWN);
        self.packet()
    }

    /// Our name for the session.
    pub fn name(&self) -> u32 {
        self.name
    }

    /// How long the neighbour may be silent; `None` before it was heard.
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote?;
        let longest = self.unconfirmed.map_or(self.config.interval, |(_, most)| most);
        Some(remote.desired_min_tx.max(longest) * u32::from(remote.multiplier))
    }

    /// A packet of this session came in; the caller found the session by `yours`, or by the address if that is 0.
    pub fn handle_packet(&mut self, now: Instant, packet: &BfdPacket) {
        let BfdPacket { diagnostic, state, poll, last, multiplier, mine, yours, desired_min_tx, required_min_rx } =
            *packet;
        if yours != 0 && yours != self.name {
            return;
        }
        let micros = |micros: u32| Duration::from_micros(u64::from(micros));
        let remote = Remote {
            name: mine,
            desired_min_tx: micros(desired_min_tx),
            required_min_rx: micros(required_min_rx),
            multiplier,
        };
        let faster = self.remote.is_some_and(|old| old.required_min_rx > remote.required_min_rx);
        self.remote = Some(remote);
        if last {
            (self.polling, self.unconfirmed) = (false, None);
        }
        let anew = state == BfdState::Down && yours == 0 && diagnostic == NO_DIAGNOSTIC;
        self.excused |= state == BfdState::AdminDown || (self.state == BfdState::Up && anew);
        match (self.state, state) {
            (BfdState::Down, BfdState::Down) => self.enter(BfdState::Init, NO_DIAGNOSTIC),
            (BfdState::Down, BfdState::Init) | (BfdState::Init, BfdState::Init | BfdState::Up) => {
                self.enter(BfdState::Up, NO_DIAGNOSTIC);
                // The neighbour shall hear of the faster interval at once.
                (self.told, self.polling, self.send_at) = (self.config.interval, true, now);
            }
            (BfdState::Init | BfdState::Up, BfdState::AdminDown) | (BfdState::Up, BfdState::Down) => {
                self.enter(BfdState::Down, NEIGHBOUR_SIGNALED_DOWN);
            }
            (BfdState::AdminDown, _)
            | (BfdState::Down, BfdState::AdminDown | BfdState::Up)
            | (BfdState::Init, BfdState::Down)
            | (BfdState::Up, BfdState::Init | BfdState::Up) => {}
        }
        self.gone_at = self.detection_time().map(|time| now + time);
        self.answer_due |= poll;
        if faster {
            self.send_at = self.send_at.min(now + self.transmit_interval());
        }
    }

    fn enter(&mut self, state: BfdState, diagnostic: u8) {
        self.state = state;
        self.diagnostic = diagnostic;
        if state == BfdState::Up {
            self.excused = false;
        } else {
            (self.told, self.polling, self.unconfirmed) = (SLOW, false, None);
        }
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.gone_at.is_some_and(|at| at <= now) {
            self.gone_at = None;
            self.remote = None;
            if matches!(self.state, BfdState::Init | BfdState::Up) {
                self.enter(BfdState::Down, DETECTION_TIME_EXPIRED);
            }
        }
    }

    /// The packet to send now, if one is due; ask until there is none.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<BfdPacket> {
        if std::mem::take(&mut self.answer_due) {
            return Some(BfdPacket { last: true, poll: false, ..self.packet() });
        }
        if self.send_at > now {
            return None;
        }
        self.send_at = now + self.jittered(self.transmit_interval());
        // A neighbour that wants no packets gets none (section 6.8.7).
        let wanted = self.remote.is_none_or(|remote| !remote.required_min_rx.is_zero());
        wanted.then(|| self.packet())
    }

    fn packet(&self) -> BfdPacket {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        BfdPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling,
            last: false,
            multiplier: self.config.multiplier,
            mine: self.name,
            yours: self.remote.map_or(0, |remote| remote.name),
            desired_min_tx: micros(self.told),
            required_min_rx: micros(self.config.interval),
        }
    }

    fn transmit_interval(&self) -> Duration {
        let asked = self.remote.map_or(Duration::ZERO, |remote| remote.required_min_rx);
        // A slower pace than the neighbour knows of would look like silence.
        self.unconfirmed.map_or(self.told, |(least, _)| least).max(asked)
    }

    /// A quarter less at most, and at least a tenth less if one lost packet is enough (section 6.8.7).
    fn jittered(&mut self, interval: Duration) -> Duration {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let cut = if self.config.multiplier == 1 { 10 + self.dice % 15 } else { self.dice % 25 };
        interval - interval / 100 * u32::try_from(cut).unwrap_or_default()
    }

    /// When to call `handle_timeout` and `poll_transmit`; the latter also after each packet.
    pub fn poll_timeout(&self) -> Instant {
        self.gone_at.map_or(self.send_at, |at| at.min(self.send_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two ends on a virtual clock; a packet arrives after a millisecond unless the line is cut.
    struct Line {
        now: Instant,
        ends: [BfdSession; 2],
        flying: Vec<(Instant, usize, BfdPacket)>,
        cut: bool,
        /// Only what the first end sends is lost.
        deaf: bool,
        sent: [usize; 2],
        /// What each end reported, without repetitions.
        reported: [Vec<BfdState>; 2],
    }

    impl Line {
        fn new(a: BfdConfig, b: BfdConfig) -> Line {
            let now = Instant::now();
            let ends = [BfdSession::new(now, a, 1), BfdSession::new(now, b, 2)];
            Line {
                now,
                ends,
                flying: Vec::new(),
                cut: false,
                deaf: false,
                sent: [0; 2],
                reported: [const { Vec::new() }; 2],
            }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += Duration::from_millis(1);
                let due = self.flying.iter().filter(|(at, _, _)| *at <= self.now).copied().collect::<Vec<_>>();
                self.flying.retain(|(at, _, _)| *at > self.now);
                for (_, to, packet) in due {
                    let read = BfdPacket::parse(&packet.encode()).expect("valid");
                    self.ends[to].handle_packet(self.now, &read);
                }
                for from in 0..2 {
                    self.ends[from].handle_timeout(self.now);
                    self.reported[from].push(self.ends[from].reported());
                    self.reported[from].dedup();
                    while let Some(packet) = self.ends[from].poll_transmit(self.now) {
                        self.sent[from] += 1;
                        if !(self.cut || self.deaf && from == 0) {
                            self.flying.push((self.now + Duration::from_millis(1), 1 - from, packet));
                        }
                    }
                }
            }
        }

        fn states(&self) -> [BfdState; 2] {
            [self.ends[0].state(), self.ends[1].state()]
        }
    }

    fn every(millis: u64, multiplier: u8) -> BfdConfig {
        BfdConfig { interval: Duration::from_millis(millis), multiplier }
    }

    #[test]
    fn both_come_up_and_a_cut_line_is_noticed_in_time() {
        let mut line = Line::new(every(50, 3), every(50, 3));
        line.run(Duration::from_secs(4));
        assert_eq!(line.states(), [BfdState::Up; 2]);
        line.sent = [0; 2];
        line.run(Duration::from_secs(10));
        assert_eq!(line.states(), [BfdState::Up; 2]);
        for sent in line.sent {
            assert!((200..270).contains(&sent), "{sent} packets in 10 s at 50 ms less a quarter");
        }
        line.cut = true;
        line.run(Duration::from_millis(100));
        assert_eq!(line.states(), [BfdState::Up; 2], "two lost packets are none too many");
        line.run(Duration::from_millis(60));
        assert_eq!(line.states(), [BfdState::Down; 2]);
        line.cut = false;
        line.run(Duration::from_secs(4));
        assert_eq!(line.states(), [BfdState::Up; 2]);
    }

    #[test]
    fn a_session_that_is_ended_on_purpose_is_no_failure() {
        let mut line = Line::new(every(50, 3), every(50, 3));
        line.run(Duration::from_secs(4));
        assert_eq!(line.states(), [BfdState::Up; 2]);
        let last = line.ends[0].withdraw();
        assert_eq!(BfdPacket::parse(&last.encode()), Some(last));
        line.ends[1].handle_packet(line.now, &last);
        assert_eq!(line.ends[1].reported(), BfdState::AdminDown);
        // Nobody is there any more: still no failure.
        line.ends[1].handle_timeout(line.now + Duration::from_secs(60));
        assert_eq!((line.ends[1].state(), line.ends[1].reported()), (BfdState::Down, BfdState::AdminDown));
        // It is set up anew.
        line.ends[0] = BfdSession::new(line.now, every(50, 3), 9);
        line.run(Duration::from_secs(4));
        assert_eq!(line.ends[1].reported(), BfdState::Up);
    }

    /// Two that are up, and nothing reported since.
    fn up(a: BfdConfig, b: BfdConfig) -> Line {
        let mut line = Line::new(a, b);
        line.run(Duration::from_secs(4));
        assert_eq!(line.states(), [BfdState::Up; 2]);
        line.reported = [const { Vec::new() }; 2];
        line
    }

    #[test]
    fn a_neighbour_that_begins_anew_is_no_failure() {
        for wait in 0..60 {
            let mut line = up(every(50, 3), every(50, 3));
            line.run(Duration::from_millis(wait));
            // Killed and back before anybody noticed; or much later.
            line.ends[0] = BfdSession::new(line.now, every(50, 3), 9);
            line.run(Duration::from_secs(4));
            assert_eq!(line.states(), [BfdState::Up; 2]);
            assert_eq!(line.reported[1], [BfdState::Up, BfdState::AdminDown, BfdState::Up], "after {wait} ms");
            // From then on it fails as any other.
            line.cut = true;
            line.run(Duration::from_secs(1));
            assert_eq!(line.ends[1].reported(), BfdState::Down);
        }
    }

    /// It is heard, and says that it does not hear us.
    #[test]
    fn a_path_that_is_dead_one_way_is_a_failure_for_both() {
        let mut line = up(every(50, 3), every(50, 3));
        line.deaf = true;
        line.run(Duration::from_millis(400));
        for reported in &line.reported {
            assert_eq!(reported[..2], [BfdState::Up, BfdState::Down], "{reported:?}");
        }
    }

    #[test]
    fn another_pace_is_agreed_on_while_the_session_is_up() {
        for (from, to) in [(50, 50), (50, 400), (400, 50), (10, 2000), (2000, 10)] {
            for (wait, lost) in [(0, 0), (7, 60), (30, 60), (48, 60)] {
                let mut line = up(every(from, 5), every(50, 3));
                line.run(Duration::from_millis(wait));
                line.ends[0].set_config(line.now, every(to, 4));
                // Again before the first change is confirmed.
                line.run(Duration::from_millis(wait % 2));
                line.ends[0].set_config(line.now, every(to, 5));
                // Nor does it hear of the second at once.
                line.deaf = true;
                line.run(Duration::from_millis(lost));
                line.deaf = false;
                line.run(Duration::from_secs(10));
                assert_eq!(line.reported, [[BfdState::Up]; 2], "{from} to {to} ms");
                let times = line.ends.each_ref().map(BfdSession::detection_time);
                assert_eq!(times, [3, 5].map(|times| Some(Duration::from_millis(to.max(50)) * times)));
                line.sent = [0; 2];
                line.run(Duration::from_secs(20));
                let expected = 20_000 / to.max(50) as usize;
                assert!(line.sent.iter().all(|sent| (expected..expected * 3 / 2).contains(sent)), "{:?}", line.sent);
                line.cut = true;
                line.run(Duration::from_millis(to.max(50) * 5 + 10));
                assert_eq!(line.states(), [BfdState::Down; 2]);
            }
        }
    }

    #[test]
    fn the_slower_side_sets_the_pace() {
        let mut line = Line::new(every(10, 3), every(400, 5));
        line.run(Duration::from_secs(5));
        assert_eq!(line.states(), [BfdState::Up; 2]);
        line.sent = [0; 2];
        line.run(Duration::from_secs(10));
        assert!(line.sent.iter().all(|sent| (24..40).contains(sent)), "{:?}", line.sent);
        let times = line.ends.each_ref().map(BfdSession::detection_time);
        assert_eq!(times, [Some(Duration::from_secs(2)), Some(Duration::from_millis(1200))]);
    }

    #[test]
    fn what_is_for_another_session_is_not_heard() {
        let mut line = Line::new(every(50, 3), every(50, 3));
        line.run(Duration::from_secs(4));
        let down = BfdPacket { state: BfdState::Down, yours: 99, mine: 7, ..line.ends[1].packet() };
        line.ends[0].handle_packet(line.now, &down);
        assert_eq!(line.states()[0], BfdState::Up);
        line.ends[0].handle_packet(line.now, &BfdPacket { yours: 1, ..down });
        assert_eq!(line.states()[0], BfdState::Down);
    }
}
