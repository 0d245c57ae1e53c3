//! Files for tests, made of coded samples.

/// An item: its type, its data, whole boxes of its properties, the items that it is made of, and the one that it adds to.
#[derive(Clone, Default)]
pub struct Item {
    pub kind: [u8; 4],
    pub data: Vec<u8>,
    pub properties: Vec<Vec<u8>>,
    pub parts: Vec<u16>,
    pub auxiliary_of: Option<u16>,
}

/// A sample of 64 x 48 pixels in AV1: columns become red and rows green. Its upper left corner is red.
pub fn av1() -> Item {
    let [configuration, data] = sample(include_str!("../../../../tests/data/heif/av1.hex"));
    Item { kind: *b"av01", data, properties: vec![boxed(b"av1C", &configuration), ispe(64, 48)], ..Item::default() }
}

/// The same with 64 x 64 pixels in HEVC.
pub fn hevc() -> Item {
    hevc_of(include_str!("../../../../tests/data/heif/hevc.hex"))
}

/// A grey ramp from left to right of 64 x 64 pixels, 10 bits a sample, in HEVC.
pub fn hevc_10_bits() -> Item {
    hevc_of(include_str!("../../../../tests/data/heif/hevc-10-bits.hex"))
}

fn hevc_of(text: &str) -> Item {
    let [configuration, data] = sample(text);
    Item { kind: *b"hvc1", data, properties: vec![boxed(b"hvcC", &configuration), ispe(64, 64)], ..Item::default() }
}

/// Columns and rows of tiles that are the items from the second one on.
pub fn grid(rows: u8, columns: u8, width: u16, height: u16) -> Item {
    let data = [&[0, 0, rows - 1, columns - 1][..], &width.to_be_bytes(), &height.to_be_bytes()].concat();
    let parts = (2..2 + u16::from(rows) * u16::from(columns)).collect();
    let properties = vec![ispe(width.into(), height.into())];
    Item { kind: *b"grid", data, properties, parts, auxiliary_of: None }
}

impl Item {
    pub fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }

    /// An item that makes another one transparent.
    pub fn alpha_of(self, item: u16) -> Self {
        const ALPHA: &[u8] = b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0";
        Self { auxiliary_of: Some(item), ..self.with(boxed(b"auxC", ALPHA)) }
    }
}

/// Configuration and data, in hexadecimal.
fn sample(text: &str) -> [Vec<u8>; 2] {
    let (configuration, data) = text.split_once("\n\n").unwrap();
    [configuration, data].map(|text| {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    })
}

pub fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(8 + body.len() as u32).to_be_bytes()[..], name, body].concat()
}

pub fn ispe(width: u32, height: u32) -> Vec<u8> {
    boxed(b"ispe", &[&[0; 4][..], &width.to_be_bytes(), &height.to_be_bytes()].concat())
}

pub fn colours(primaries: u16, transfer: u16) -> Vec<u8> {
    let codes = [primaries.to_be_bytes(), transfer.to_be_bytes(), 6u16.to_be_bytes()].concat();
    boxed(b"colr", &[b"nclx", &codes[..], &[0x80]].concat())
}

/// A file whose primary item is the first one.
pub fn file(brand: &[u8; 4], items: &[Item]) -> Vec<u8> {
    let kind = boxed(b"ftyp", &[&brand[..], &[0; 4], brand, b"mif1"].concat());
    // Places have a fixed length.
    let start = kind.len() + list(items, 0).len() + 8;
    let data: Vec<u8> = items.iter().flat_map(|item| item.data.clone()).collect();
    [kind, list(items, start), boxed(b"mdat", &data)].concat()
}

fn list(items: &[Item], start: usize) -> Vec<u8> {
    let ids = || (1u16..).zip(items);
    let count = (items.len() as u16).to_be_bytes();
    let handler = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let primary = boxed(b"pitm", &[0, 0, 0, 0, 0, 1]);

    let mut places = [&[0, 0, 0, 0, 0x44, 0][..], &count].concat();
    let mut offset = start as u32;
    for (id, item) in ids() {
        let length = item.data.len() as u32;
        let entry = [&id.to_be_bytes()[..], &[0, 0, 0, 1], &offset.to_be_bytes(), &length.to_be_bytes()].concat();
        places.extend(entry);
        offset += length;
    }

    let entry = |(id, item): (u16, &Item)| {
        boxed(b"infe", &[&[2, 0, 0, 0][..], &id.to_be_bytes(), &[0, 0], &item.kind, &[0]].concat())
    };
    let entries = [vec![0; 4], count.to_vec(), ids().flat_map(entry).collect()].concat();

    let properties: Vec<u8> = items.iter().flat_map(|item| item.properties.concat()).collect();
    let mut associations = [&[0; 4][..], &(items.len() as u32).to_be_bytes()].concat();
    let mut next = 1u8;
    for (id, item) in ids() {
        associations.extend(id.to_be_bytes());
        associations.push(item.properties.len() as u8);
        associations.extend((0..item.properties.len()).map(|_| {
            next += 1;
            next - 1
        }));
    }
    let properties = boxed(b"iprp", &[boxed(b"ipco", &properties), boxed(b"ipma", &associations)].concat());

    let reference = |name: &[u8; 4], from: u16, to: &[u16]| {
        let to: Vec<u8> = to.iter().flat_map(|id| id.to_be_bytes()).collect();
        boxed(name, &[&from.to_be_bytes()[..], &((to.len() / 2) as u16).to_be_bytes(), &to].concat())
    };
    let mut references = vec![0; 4];
    for (id, item) in ids() {
        if !item.parts.is_empty() {
            references.extend(reference(b"dimg", id, &item.parts));
        }
        if let Some(other) = item.auxiliary_of {
            references.extend(reference(b"auxl", id, &[other]));
        }
    }
    let parts = [
        vec![0; 4],
        handler,
        primary,
        boxed(b"iloc", &places),
        boxed(b"iinf", &entries),
        properties,
        boxed(b"iref", &references),
    ];
    boxed(b"meta", &parts.concat())
}
