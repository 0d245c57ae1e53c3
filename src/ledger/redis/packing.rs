//! The layout of a photo's status and history in one Redis string.
//!
//! ```text
//! position   6 bytes   layout and stage, kind, delivery number (big-endian): the condition of a move
//! processor            crashes, length of the worker's name, the name
//! fields               length (2 bytes), host, code of the cause (empty: none), attempt, due time, detail of the cause
//!                      (if there is one), 4 bytes of the hash of the photo's URL (versions before 0.2 wrote none)
//! history              events, each after its length
//! ```
//!
//! The scripts compare the position, skip by the lengths, and read host and code; only this file reads the rest. A byte
//! with its length precedes each text. Numbers without a size are LEB128: seven bits a byte, the lowest first.

use crate::domain::{Candidate, Cause, ContentHash, Ending, Position, StageName, State};
use crate::ledger::{Event, EventKind, PhotoStatus};

/// In the high half of the first byte; a later layout has another number.
const LAYOUT: u8 = 1;
/// Longer details are clipped: the photo's record in the object store has the whole text.
const MAX_DETAIL: usize = 160;
/// Bytes, about 15 events. Older events are dropped.
pub const MAX_HISTORY: usize = 255;
const MAX_CODE: usize = 100;
const MAX_TEXT: usize = 255;

#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the stored photo: {0}")]
pub struct BadPacking(pub &'static str);

/// Stage, kind and delivery number as the scripts compare them. A photo that ended keeps the delivery number.
pub fn position(at: Position, ending: Option<Ending>) -> [u8; 6] {
    let kind = ending.map_or(0, |ending| 1 + index_of(&Ending::ALL, ending));
    let [a, b, c, d] = at.delivery.to_be_bytes();
    [LAYOUT << 4 | index_of(&StageName::ALL, at.stage), kind, a, b, c, d]
}

pub fn index_of<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter().position(|other| *other == one).unwrap_or_default() as u8
}

/// A stored photo, without its message.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedPhoto {
    pub at: Position,
    pub ending: Option<Ending>,
    pub fields: StatusFields,
    pub history: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatusFields {
    pub attempt: u32,
    pub due_at: u64,
    pub host: String,
    pub cause: Option<Cause>,
    /// Tells the photo from another one with the same id. None: an earlier version stored the photo.
    pub url_mark: Option<[u8; 4]>,
}

impl StatusFields {
    pub fn new(attempt: u32, due_at: u64, candidate: &Candidate, cause: Option<&Cause>) -> Self {
        let clipped = |cause: &Cause| Cause {
            code: clip(&cause.code.as_str(), MAX_CODE).into(),
            detail: clip(&cause.detail, MAX_DETAIL).to_owned(),
        };
        let cause = cause.filter(|cause| !cause.code.as_str().is_empty()).map(clipped);
        let host = clip(&candidate.host(), MAX_TEXT).to_owned();
        Self { attempt, due_at, host, cause, url_mark: Some(url_mark(&candidate.photo_url)) }
    }

    /// Whether another photo than the candidate is stored under its id.
    pub fn differ_from(&self, candidate: &Candidate) -> bool {
        self.url_mark.is_some_and(|mark| mark != url_mark(&candidate.photo_url))
    }

    /// With its length first.
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        text(&mut bytes, &self.host);
        text(&mut bytes, &self.cause.as_ref().map_or_else(Default::default, |cause| cause.code.as_str()));
        number(&mut bytes, u64::from(self.attempt));
        number(&mut bytes, self.due_at);
        if let Some(cause) = &self.cause {
            text(&mut bytes, &cause.detail);
        }
        bytes.extend_from_slice(self.url_mark.as_ref().map_or(&[], |mark| mark));
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}

/// An event with its length first. The status has the detail of the last event; earlier events have none.
pub fn pack_event(event: &Event) -> Vec<u8> {
    let what = index_of(&EventKind::ALL, event.what);
    let code = what << 3 | index_of(&StageName::ALL, event.stage) << 1 | u8::from(event.cause.is_some());
    let mut bytes = vec![0, code];
    bytes.extend_from_slice(&event.at_ms.to_be_bytes()[2..]);
    number(&mut bytes, u64::from(event.attempt));
    number(&mut bytes, u64::from(event.took_ms));
    if let Some(cause) = &event.cause {
        bytes.extend_from_slice(clip(&cause.code.as_str(), MAX_CODE).as_bytes());
    }
    bytes[0] = (bytes.len() - 1) as u8;
    bytes
}

/// A photo that waits, without a worker.
pub fn pack_new(at: Position, fields: &StatusFields, event: &Event) -> Vec<u8> {
    [&position(at, None)[..], &[0, 0], &fields.pack(), &pack_event(event)].concat()
}

impl PackedPhoto {
    pub fn read(bytes: &[u8]) -> Result<Self, BadPacking> {
        let mut rest = bytes;
        let first = take(&mut rest, 1)?[0];
        if first >> 4 != LAYOUT {
            return Err(BadPacking("another version of facemill wrote it"));
        }
        let stage = nth(&StageName::ALL, first & 15)?;
        let ending = match take(&mut rest, 1)?[0] {
            0 => None,
            kind => Some(nth(&Ending::ALL, kind - 1)?),
        };
        let delivery = u32::from_be_bytes(take(&mut rest, 4)?.try_into().map_err(|_| BadPacking("it is truncated"))?);
        let worker = usize::from(take(&mut rest, 2)?[1]);
        take(&mut rest, worker)?;
        let length = take(&mut rest, 2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let fields = read_fields(take(&mut rest, length)?)?;
        let mut history = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(take(&mut rest, 1)?[0]);
            history.push(read_event(take(&mut rest, length)?)?);
        }
        // The last event's cause is the cause of the status, which has the detail, too.
        if let Some(Event { cause: Some(cause), .. }) = history.last_mut()
            && let Some(known) = &fields.cause
            && known.code == cause.code
        {
            cause.detail.clone_from(&known.detail);
        }
        Ok(Self { at: Position { stage, delivery }, ending, fields, history })
    }

    pub fn status(self) -> PhotoStatus {
        PhotoStatus {
            state: self.ending.map_or(State::Waiting(self.at), State::Ended),
            stage: self.at.stage,
            attempt: self.fields.attempt,
            due_at: self.fields.due_at,
            cause: self.fields.cause,
            message: None,
        }
    }
}

fn read_fields(mut bytes: &[u8]) -> Result<StatusFields, BadPacking> {
    let host = take_text(&mut bytes)?;
    let code = take_text(&mut bytes)?;
    let attempt = take_number(&mut bytes)? as u32;
    let due_at = take_number(&mut bytes)?;
    let cause = match code.as_str() {
        "" => None,
        _ => Some(Cause { code: code.into(), detail: take_text(&mut bytes)? }),
    };
    let url_mark = match bytes {
        [] => None,
        _ => Some(bytes.try_into().map_err(|_| BadPacking("it holds more than this version knows"))?),
    };
    Ok(StatusFields { attempt, due_at, host, cause, url_mark })
}

fn url_mark(url: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = *ContentHash::of(url.as_bytes()).as_bytes();
    [a, b, c, d]
}

fn read_event(mut bytes: &[u8]) -> Result<Event, BadPacking> {
    let code = take(&mut bytes, 1)?[0];
    let at_ms = take(&mut bytes, 6)?.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
    let attempt = take_number(&mut bytes)? as u32;
    let took_ms = take_number(&mut bytes)? as u32;
    let cause_code = || String::from_utf8_lossy(bytes).into_owned();
    Ok(Event {
        at_ms,
        stage: nth(&StageName::ALL, code >> 1 & 3)?,
        attempt,
        what: nth(&EventKind::ALL, code >> 3)?,
        cause: (code & 1 == 1).then(|| Cause { code: cause_code().into(), detail: String::new() }),
        took_ms,
    })
}

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, BadPacking> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(BadPacking("a number has no end"))
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    let text = clip(text, MAX_TEXT);
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Result<String, BadPacking> {
    let length = usize::from(take(bytes, 1)?[0]);
    String::from_utf8(take(bytes, length)?.to_vec()).map_err(|_| BadPacking("a text is not UTF-8"))
}

fn clip(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], BadPacking> {
    bytes.split_off(..length).ok_or(BadPacking("it is truncated"))
}

fn nth<T: Copy>(all: &[T], index: u8) -> Result<T, BadPacking> {
    all.get(usize::from(index)).copied().ok_or(BadPacking("it holds a code of another version"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CauseCode;

    fn photo(cause: Option<Cause>) -> (Position, StatusFields, Event) {
        let at = Position { stage: StageName::Crop, delivery: 70_000 };
        let fields = StatusFields::new(3, 1_800_000_000, &Candidate::example(1), cause.as_ref());
        let event = Event {
            at_ms: 1_700_000_000_123,
            stage: at.stage,
            attempt: 300,
            what: EventKind::Retried,
            cause,
            took_ms: 9,
        };
        (at, fields, event)
    }

    #[test]
    fn packed_photos_are_read_back() {
        for cause in [None, Some(Cause::new(CauseCode::Http(503), "it's \"so\" — 無"))] {
            let (at, fields, event) = photo(cause);
            let bytes = pack_new(at, &fields, &event);
            assert_eq!(
                PackedPhoto::read(&bytes).unwrap(),
                PackedPhoto { at, ending: None, fields, history: vec![event] }
            );
        }
    }

    #[test]
    fn foreign_and_truncated_strings_are_refused() {
        let (at, fields, event) = photo(Some(Cause::new(CauseCode::Timeout, "x".repeat(400))));
        let bytes = pack_new(at, &fields, &event);
        for length in 0..bytes.len() {
            // Truncated between two events it is a shorter history; elsewhere it is invalid.
            let whole = bytes.len() - pack_event(&event).len();
            assert_eq!(PackedPhoto::read(&bytes[..length]).is_ok(), length == whole, "{length}");
        }
        assert!(PackedPhoto::read(b"a foreign text").is_err());
    }

    #[test]
    fn long_texts_are_clipped_at_a_character() {
        let cause = Cause { code: "s".into(), detail: "無".repeat(100) };
        let (at, _, event) = photo(Some(cause.clone()));
        let mut candidate = Candidate::example(1);
        candidate.photo_url = format!("http://{}.test/1.jpg", "x".repeat(300));
        let fields = StatusFields::new(1, 0, &candidate, Some(&cause));
        let read = PackedPhoto::read(&pack_new(at, &fields, &event)).unwrap();
        assert_eq!(read.fields.cause.unwrap().detail, "無".repeat(53));
        assert_eq!(read.fields.host, "x".repeat(255));
    }

    #[test]
    fn another_url_is_told_from_the_same() {
        let fields = StatusFields::new(1, 0, &Candidate::example(1), None);
        let other = Candidate { photo_url: "http://photos.test/2.jpg".into(), ..Candidate::example(1) };
        assert!(!fields.differ_from(&Candidate::example(1)) && fields.differ_from(&other));
        let earlier = StatusFields { url_mark: None, ..fields };
        let (at, _, event) = photo(None);
        let read = PackedPhoto::read(&pack_new(at, &earlier, &event)).unwrap();
        assert_eq!(read.fields, earlier, "an earlier version wrote no mark");
        assert!(!earlier.differ_from(&other));
    }

    #[test]
    fn positions_of_different_photos_differ() {
        let mut seen = std::collections::HashSet::new();
        for stage in StageName::ALL {
            for delivery in [1, 2, 300, u32::MAX] {
                for ending in [None].into_iter().chain(Ending::ALL.map(Some)) {
                    assert!(seen.insert(position(Position { stage, delivery }, ending)));
                }
            }
        }
    }
}
