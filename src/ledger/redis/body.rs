//! A waiting photo's message as it lies in Redis: its JSON, with zstd where that helps.

use crate::domain::BadMessage;
use crate::domain::Message;

/// Shorter ones gain little.
const LONG: usize = 512;
const LEVEL: i32 = 1;
/// A message beyond that was not written by us.
const MAX: usize = 4 << 20;

pub fn pack(message: &Message) -> Vec<u8> {
    let json = message.encode();
    match json.len() > LONG && json.len() <= MAX {
        true => zstd::bulk::compress(&json, LEVEL).unwrap_or(json),
        false => json,
    }
}

/// zstd's first byte is no JSON's.
pub fn unpack(body: &[u8]) -> Result<Message, BadMessage> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    if !body.starts_with(&ZSTD) {
        return Message::decode(body);
    }
    let json = zstd::bulk::decompress(body, MAX).map_err(|error| BadMessage::Foreign(error.to_string()))?;
    Message::decode(&json)
}
