//! Changes to a script: of steps, of messages, of attributes, of bytes; most keep the lengths around them true, so that
//! what is behind a length is reached.

use crate::script::{Script, Step};

/// A small generator of numbers (xorshift), so that a seed replays.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 16] = [0, 1, 2, 3, 4, 16, 19, 32, 33, 64, 127, 128, 129, 192, 254, 255];
        if self.one_in(2) { TELLING[self.below(16)] } else { self.below(256) as u8 }
    }
}

const HEADER: usize = 19;
/// Steps and bytes of a script are bounded.
const MOST_STEPS: usize = 60;
const MOST_BYTES: usize = 40_000;

/// A changed script, perhaps with a part of another.
pub fn mutate(base: &Script, other: &Script, dice: &mut Dice) -> Script {
    let mut script = base.clone();
    if dice.one_in(20) {
        script.setup ^= 1 << dice.below(7);
    }
    for _ in 0..=dice.below(4) {
        change_steps(&mut script.steps, &other.steps, dice);
    }
    script.steps.truncate(MOST_STEPS);
    script
}

fn change_steps(steps: &mut Vec<Step>, other: &[Step], dice: &mut Dice) {
    let at = dice.below(steps.len() + 1);
    match dice.below(12) {
        0 => steps.insert(at, [Step::Dial, Step::Close][dice.below(2)].clone()),
        1 => steps.insert(at, Step::Wait([10, 1000, 30_000, 91_000, 200_000, 5_000_000][dice.below(6)])),
        2 if at < steps.len() => drop(steps.remove(at)),
        3 if !other.is_empty() => steps.insert(at, other[dice.below(other.len())].clone()),
        4 if at < steps.len() => {
            let to = dice.below(steps.len());
            steps.swap(at, to);
        }
        _ => {
            let sending: Vec<usize> = (0..steps.len()).filter(|at| matches!(steps[*at], Step::Bytes(_))).collect();
            let Some(at) = sending.get(dice.below(sending.len())) else { return };
            let Step::Bytes(bytes) = &mut steps[*at] else { return };
            change_stream(bytes, dice);
            bytes.truncate(MOST_BYTES);
        }
    }
}

/// Changes the messages of a stream, or its bytes whatever they are.
fn change_stream(bytes: &mut Vec<u8>, dice: &mut Dice) {
    if dice.one_in(10) {
        return change_bytes(bytes, dice);
    }
    let mut frames = frames(bytes);
    let at = dice.below(frames.len());
    if frames.is_empty() {
        return change_bytes(bytes, dice);
    }
    match dice.below(8) {
        0 => {
            let copy = frames[dice.below(frames.len())].clone();
            frames.insert(at, copy);
        }
        1 => drop(frames.remove(at)),
        2 => {
            let to = dice.below(frames.len());
            frames.swap(at, to);
        }
        3 if frames[at].len() > HEADER => frames[at][18] = 1 + dice.below(6) as u8,
        _ => change_frame(&mut frames[at], dice),
    }
    *bytes = frames.concat();
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while bytes.len() >= HEADER {
        let length = usize::from(u16::from_be_bytes([bytes[16], bytes[17]])).clamp(HEADER, bytes.len());
        let (frame, rest) = bytes.split_at(length);
        all.push(frame.to_vec());
        bytes = rest;
    }
    if !bytes.is_empty() {
        all.push(bytes.to_vec());
    }
    all
}

fn change_frame(frame: &mut Vec<u8>, dice: &mut Dice) {
    if frame.len() <= HEADER {
        return change_bytes(frame, dice);
    }
    let update = frame[18] == 2;
    let mut body = frame.split_off(HEADER);
    if !update || !dice.one_in(3) || !change_attributes(&mut body, dice) {
        change_bytes(&mut body, dice);
    }
    frame.extend(body);
    if !dice.one_in(8) {
        let length = (frame.len() as u16).to_be_bytes();
        frame[16..18].copy_from_slice(&length);
    }
}

/// Changes the list of attributes of an UPDATE; `false` if there is none.
fn change_attributes(body: &mut Vec<u8>, dice: &mut Dice) -> bool {
    let word = |body: &[u8], at: usize| Some(usize::from(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?])));
    let Some(start) = word(body, 0).map(|withdrawn| withdrawn + 4) else { return false };
    let Some(end) = word(body, start.saturating_sub(2)).map(|length| start + length) else { return false };
    if end > body.len() || end == start {
        return false;
    }
    let mut list = split_attributes(&body[start..end]);
    let at = dice.below(list.len());
    let Some(attribute) = list.get_mut(at) else { return false };
    match dice.below(6) {
        0 => drop(list.remove(at)),
        1 => {
            let copy = attribute.clone();
            list.push(copy);
        }
        2 => attribute.0 ^= 1 << dice.below(8),
        3 => attribute.1 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 35, 128, 255][dice.below(19)],
        _ => change_bytes(&mut attribute.2, dice),
    }
    let mut bytes = Vec::new();
    for (flags, code, value) in list {
        let long = value.len() > 255;
        bytes.extend([if long { flags | 0x10 } else { flags }, code]);
        if long || flags & 0x10 != 0 {
            bytes.extend((value.len() as u16).to_be_bytes());
        } else {
            bytes.push(value.len() as u8);
        }
        bytes.extend(value);
    }
    let length = (bytes.len() as u16).to_be_bytes();
    body.splice(start..end, bytes);
    body[start - 2..start].copy_from_slice(&length);
    true
}

fn split_attributes(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [flags, code, rest @ ..] = bytes {
        let (length, rest) = match rest {
            [high, low, rest @ ..] if flags & 0x10 != 0 => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            [length, rest @ ..] => (usize::from(*length), rest),
            [] => break,
        };
        let (value, rest) = rest.split_at(length.min(rest.len()));
        all.push((*flags, *code, value.to_vec()));
        bytes = rest;
    }
    all
}

fn change_bytes(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        let longest = 1 + dice.below(40);
        let length = (1 + dice.below(longest)).min(bytes.len().saturating_sub(at));
        match dice.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 | 2 if !bytes.is_empty() => bytes[at] = dice.byte(),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let copy = bytes[at..at + length].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => {
                let byte = dice.byte();
                bytes.insert(at.min(bytes.len()), byte);
            }
        }
    }
}
