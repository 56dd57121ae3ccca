//! The identity of a resource that is made out of another object: that object's uid, changed so that the two differ.

/// Reverses the bits of each byte of a UUID but those that hold its version and variant (the 7th and the 9th), as
/// upstream does; its own inverse. `None` if the text is no UUID.
pub fn transformed(uid: &str) -> Option<String> {
    let digits: Vec<u8> = uid.bytes().filter(|byte| *byte != b'-').collect();
    let dashes = uid.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at);
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) || !dashes.eq([8, 13, 18, 23]) {
        return None;
    }
    let mut out = String::with_capacity(36);
    for (at, pair) in digits.chunks(2).enumerate() {
        let byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let byte = if matches!(at, 6 | 8) { byte } else { byte.reverse_bits() };
        out.push_str(&format!("{byte:02x}"));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_is_the_same_again_and_version_and_variant_stay() {
        let uid = "30316465-6365-4463-ad63-3564622d3638";
        let other = transformed(uid).expect("a uuid");
        // Worked by hand: 0x30 = 00110000 -> 00001100 = 0x0c; byte 6 (0x44) and byte 8 (0xad) stay.
        assert_eq!(other, "0c8c26a6-c6a6-44c6-adc6-ac2646b46c1c");
        assert_eq!(transformed(&other).as_deref(), Some(uid));
        for wrong in [
            "",
            "x",
            "30316465-6365-4463-ad63-3564622d363",
            "303164656365-4463-ad63-3564622d36380",
            "+0316465-6365-4463-ad63-3564622d3638",
        ] {
            assert_eq!(transformed(wrong), None, "{wrong}");
        }
    }
}
