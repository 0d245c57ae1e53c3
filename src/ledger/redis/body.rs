//! A stored message: JSON, compressed with zstd when it is long.

use crate::domain::{BadMessage, Message};

/// Bytes. Compression gains little below.
const LONG: usize = 512;
const LEVEL: i32 = 1;
/// Bytes. facemill writes no longer message.
const MAX: usize = 4 << 20;

pub fn pack(message: &Message) -> Vec<u8> {
    let json = message.encode();
    match json.len() > LONG && json.len() <= MAX {
        true => zstd::bulk::compress(&json, LEVEL).unwrap_or(json),
        false => json,
    }
}

/// zstd's first byte cannot start JSON.
pub fn unpack(body: &[u8]) -> Result<Message, BadMessage> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    if !body.starts_with(&ZSTD) {
        return Message::decode(body);
    }
    let json = zstd::bulk::decompress(body, MAX).map_err(|error| BadMessage::Foreign(error.to_string()))?;
    Message::decode(&json)
}
