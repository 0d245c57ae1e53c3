//! Reads the tensors of a file that `torch.save` wrote before torch 1.6.
//!
//! Such a file is four pickles (a magic number, the protocol's version, a description of the machine, the table of
//! tensors), a fifth with the keys of the storages, and then each storage: its length as 64 bits, its elements. Only
//! the instructions that such a table needs are known, and nothing in it is ever called. A file of somebody who means
//! harm can still exhaust memory: ours is pinned by its hash.

use std::collections::HashMap;
use std::rc::Rc;

/// The file is no such file, or is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {detail}")]
pub struct BadWeights {
    pub at: usize,
    pub detail: String,
}

/// A tensor of floats, its elements row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Reads all float tensors of `bytes`, by name. Integer tensors (counters of batches) are left out.
///
/// # Errors
/// Not a file of this kind, cut short, or with a tensor that reaches beyond its storage.
pub fn read(bytes: &[u8]) -> Result<HashMap<String, Tensor>, BadWeights> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.pickle()? != Value::Magic {
        return Err(reader.bad("not a file that torch.save wrote before torch 1.6"));
    }
    reader.pickle()?;
    reader.pickle()?;
    let Value::Dict(table) = reader.pickle()? else { return Err(reader.bad("no table of tensors")) };
    let Value::Sequence(keys) = reader.pickle()? else { return Err(reader.bad("no list of storages")) };
    let storages = reader.storages(&keys, &table)?;
    let mut tensors = HashMap::new();
    for (name, value) in table {
        if let (Value::Text(name), Value::View(view)) = (name, value)
            && let Some(storage) = storages.get(&view.storage.key)
        {
            let tensor = view.gather(storage).ok_or_else(|| reader.bad(format!("`{name}` leaves its storage")))?;
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

/// What the table's pickle can hold.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Mark,
    Magic,
    Nothing,
    Number(i64),
    Text(Rc<str>),
    /// A class or function, by name only.
    Global(Rc<str>),
    Sequence(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    View(View),
}

#[derive(Debug, Clone, PartialEq)]
struct Storage {
    key: Rc<str>,
    element: Element,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Element {
    Float,
    Long,
}

#[derive(Debug, Clone, PartialEq)]
struct View {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    /// The view's elements, row by row: weights that came from elsewhere lie transposed in their storage.
    fn gather(&self, storage: &[f32]) -> Option<Tensor> {
        let len = self.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))?;
        if len > storage.len() || self.shape.len() != self.strides.len() {
            return None;
        }
        let mut values = Vec::with_capacity(len);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..len {
            let steps = index.iter().zip(&self.strides);
            let at = steps.fold(self.offset, |at, (&i, &stride)| at.saturating_add(stride.saturating_mul(i)));
            values.push(*storage.get(at)?);
            for (i, &size) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < size {
                    break;
                }
                *i = 0;
            }
        }
        Some(Tensor { shape: self.shape.clone(), values })
    }
}

const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, detail: impl Into<String>) -> BadWeights {
        BadWeights { at: self.at, detail: detail.into() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], BadWeights> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.bad("the file ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned little-endian number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Result<usize, BadWeights> {
        let number = self.take(len)?.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| self.bad("a number is too large"))
    }

    fn line(&mut self) -> Result<String, BadWeights> {
        let len = self.bytes[self.at..].iter().take(256).position(|&byte| byte == b'\n');
        let len = len.ok_or_else(|| self.bad("a name without an end"))?;
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    /// Runs one pickle to its end.
    fn pickle(&mut self) -> Result<Value, BadWeights> {
        let mut stack: Vec<Value> = Vec::new();
        let mut memo: HashMap<usize, Value> = HashMap::new();
        loop {
            let instruction = self.number(1)? as u8;
            let value = match instruction {
                b'.' => return stack.pop().ok_or_else(|| self.bad("an empty pickle")),
                0x80 => {
                    self.take(1)?;
                    continue;
                }
                b'(' => Value::Mark,
                b'N' | 0x88 | 0x89 => Value::Nothing,
                b'K' => Value::Number(self.number(1)? as i64),
                b'M' => Value::Number(self.number(2)? as i64),
                b'J' => Value::Number(i64::from(self.number(4)? as u32 as i32)),
                0x8a => {
                    let len = self.number(1)?;
                    if self.take(len)? == MAGIC { Value::Magic } else { Value::Nothing }
                }
                b'X' => {
                    let len = self.number(4)?;
                    Value::Text(String::from_utf8_lossy(self.take(len)?).into())
                }
                b'c' => Value::Global(format!("{}.{}", self.line()?, self.line()?).into()),
                b')' | b']' => Value::Sequence(Vec::new()),
                b'}' => Value::Dict(Vec::new()),
                b't' => Value::Sequence(self.since_mark(&mut stack)?),
                0x85..=0x87 => {
                    let len = usize::from(instruction - 0x84);
                    let start = stack.len().checked_sub(len).ok_or_else(|| self.bad("a tuple of nothing"))?;
                    Value::Sequence(stack.split_off(start))
                }
                b'q' | b'r' => {
                    let key = self.number(if instruction == b'q' { 1 } else { 4 })?;
                    // Only names are ever recalled; remembering containers would let a small file grow without bound.
                    if let Some(name @ (Value::Text(_) | Value::Global(_))) = stack.last() {
                        memo.insert(key, name.clone());
                    }
                    continue;
                }
                b'h' | b'j' => {
                    let key = self.number(if instruction == b'h' { 1 } else { 4 })?;
                    memo.get(&key).cloned().ok_or_else(|| self.bad("recalls something else than a name"))?
                }
                b'Q' => self.storage(stack.pop())?,
                b'R' => {
                    let (arguments, function) = (stack.pop(), stack.pop());
                    self.build(function, arguments)?
                }
                // The state of an OrderedDict is its version table, which nobody needs.
                b'b' => {
                    stack.pop();
                    continue;
                }
                b's' | b'u' | b'e' | b'a' => {
                    let items = match instruction {
                        b'u' | b'e' => self.since_mark(&mut stack)?,
                        single => stack.split_off(stack.len().saturating_sub(if single == b's' { 2 } else { 1 })),
                    };
                    match stack.last_mut() {
                        Some(Value::Sequence(sequence)) => sequence.extend(items),
                        Some(Value::Dict(dict)) => dict.extend(pairs(items)),
                        _ => return Err(self.bad("items without a container")),
                    }
                    continue;
                }
                other => {
                    return Err(self.bad(format!("pickle instruction 0x{other:02x} has no place in a weight file")));
                }
            };
            stack.push(value);
        }
    }

    fn since_mark(&self, stack: &mut Vec<Value>) -> Result<Vec<Value>, BadWeights> {
        let mark =
            stack.iter().rposition(|value| *value == Value::Mark).ok_or_else(|| self.bad("a mark is missing"))?;
        let items = stack.split_off(mark + 1);
        stack.pop();
        Ok(items)
    }

    /// `("storage", class, key, device, length, view)`.
    fn storage(&self, id: Option<Value>) -> Result<Value, BadWeights> {
        let bad = || self.bad("a storage that is not of floats or longs");
        let Some(Value::Sequence(parts)) = id else { return Err(bad()) };
        let [_, Value::Global(class), Value::Text(key), _, Value::Number(len), ..] = parts.as_slice() else {
            return Err(bad());
        };
        let element = match &**class {
            "torch.FloatStorage" => Element::Float,
            "torch.LongStorage" => Element::Long,
            _ => return Err(bad()),
        };
        Ok(Value::Storage(Storage { key: key.clone(), element, len: usize::try_from(*len).map_err(|_| bad())? }))
    }

    /// The two calls that a table contains.
    fn build(&self, function: Option<Value>, arguments: Option<Value>) -> Result<Value, BadWeights> {
        let (Some(Value::Global(function)), Some(Value::Sequence(arguments))) = (function, arguments) else {
            return Err(self.bad("a call of something else than a function"));
        };
        match (&*function, arguments.as_slice()) {
            ("collections.OrderedDict", []) => Ok(Value::Dict(Vec::new())),
            (
                "torch._utils._rebuild_tensor_v2",
                [Value::Storage(storage), Value::Number(offset), shape, strides, ..],
            ) => {
                let (shape, strides) = (sizes(shape), sizes(strides));
                match (usize::try_from(*offset), shape, strides) {
                    (Ok(offset), Some(shape), Some(strides)) => {
                        Ok(Value::View(View { storage: storage.clone(), offset, shape, strides }))
                    }
                    _ => Err(self.bad("a tensor without a size")),
                }
            }
            _ => Err(self.bad(format!("`{function}` has no place in a weight file"))),
        }
    }

    fn storages(&mut self, keys: &[Value], table: &[(Value, Value)]) -> Result<HashMap<Rc<str>, Vec<f32>>, BadWeights> {
        let described: HashMap<&str, &Storage> = table
            .iter()
            .filter_map(|(_, value)| if let Value::View(view) = value { Some(&view.storage) } else { None })
            .map(|storage| (&*storage.key, storage))
            .collect();
        let mut storages = HashMap::new();
        for key in keys {
            let Value::Text(key) = key else { return Err(self.bad("a storage without a name")) };
            let len = self.number(8)?;
            let storage = described.get(&**key).filter(|storage| storage.len == len);
            let storage = storage.ok_or_else(|| self.bad(format!("storage {key} is not as the table describes it")))?;
            let width = if storage.element == Element::Float { 4 } else { 8 };
            let bytes = self.take(len.checked_mul(width).ok_or_else(|| self.bad("a storage is too large"))?)?;
            if storage.element == Element::Float {
                let values = bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
                storages.insert(key.clone(), values);
            }
        }
        Ok(storages)
    }
}

fn pairs(items: Vec<Value>) -> impl Iterator<Item = (Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
}

fn sizes(value: &Value) -> Option<Vec<usize>> {
    let Value::Sequence(items) = value else { return None };
    let size = |item: &Value| if let Value::Number(number) = item { usize::try_from(*number).ok() } else { None };
    items.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one 2x3 tensor that lies transposed in its storage.
    fn file() -> Vec<u8> {
        let mut file = b"\x80\x02\x8a\x0a".to_vec();
        file.extend(MAGIC);
        file.extend(b".\x80\x02M\xe9\x03.\x80\x02}.");
        file.extend(
            b"\x80\x02ccollections\nOrderedDict\nq\x00)R(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(",
        );
        file.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x06NtQ");
        file.extend(b"K\x00K\x02K\x03\x86K\x01K\x02\x86\x89h\x00)RtRu.");
        file.extend(b"\x80\x02]X\x01\x00\x00\x007a.\x06\x00\x00\x00\x00\x00\x00\x00");
        file.extend([1f32, 2., 3., 4., 5., 6.].iter().flat_map(|value| value.to_le_bytes()));
        file
    }

    #[test]
    fn a_transposed_tensor_is_laid_straight() {
        let tensors = read(&file()).unwrap();
        assert_eq!(tensors["w"], Tensor { shape: vec![2, 3], values: vec![1., 3., 5., 2., 4., 6.] });
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let file = file();
        for len in 0..file.len() {
            assert!(read(&file[..len]).is_err(), "{len} bytes were taken for a whole file");
        }
    }

    #[test]
    fn a_tensor_larger_than_its_storage_is_an_error() {
        let mut file = file();
        let shape = file.windows(4).position(|four| four == b"K\x02K\x03").unwrap();
        file[shape + 1] = 9;
        assert!(read(&file).unwrap_err().detail.contains("leaves its storage"));
    }

    #[test]
    fn calls_of_anything_else_are_refused() {
        let call = b"\x80\x02\x8a\x0a".iter().chain(&MAGIC).chain(b".\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.");
        let error = read(&call.copied().collect::<Vec<_>>()).unwrap_err();
        assert!(error.detail.contains("os.system"), "{error}");
    }
}
