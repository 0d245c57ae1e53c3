//! Fingerprints: perceptual hashes of crops, which copies of a photo share but for a few bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hash::hex;

/// A perceptual hash of a crop, 32 hex digits in text. The distance of two fingerprints is the number of bits that differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u128);

impl Fingerprint {
    pub const BITS: u32 = u128::BITS;
    /// The largest distance of two crops that may show one photograph: see docs/decisions/7-fingerprints.md.
    pub const MAX_DISTANCE: u32 = 15;

    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    pub fn bits(self) -> u128 {
        self.0
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// How many bits differ, 0 to [`Self::BITS`].
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.bytes()))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a fingerprint of 32 hex digits")]
pub struct BadFingerprint(String);

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        bits.map(Self).ok_or_else(|| BadFingerprint(text.chars().take(80).collect()))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_round_trip_as_text_and_bytes() {
        let fingerprint = Fingerprint::from_bits(0x0123_4567_89ab_cdef_0000_0000_0000_00ff);
        assert_eq!(fingerprint.to_string(), "0123456789abcdef00000000000000ff");
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
        assert_eq!(Fingerprint::from_bytes(fingerprint.bytes()), fingerprint);
        for bad in ["", "0123", "+123456789abcdef00000000000000ff", &"é".repeat(16)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_distance_counts_bits() {
        let [none, all] = [0, u128::MAX].map(Fingerprint::from_bits);
        assert_eq!((none.distance(all), none.distance(none)), (Fingerprint::BITS, 0));
        assert_eq!(Fingerprint::from_bits(0b1011).distance(Fingerprint::from_bits(0b0001)), 2);
    }
}
