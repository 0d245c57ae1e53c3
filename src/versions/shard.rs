//! Shards: faces of a version as a Parquet file.
//!
//! What a comparison needs has columns of its own, so that the rest is not read for it. The column `face` has all that the
//! index said of the face, as JSON.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::dataset::Face;
use crate::dataset::selection::label_of;
use crate::domain::{ContentHash, Id, Printable};

/// Faces in a shard: about 10 MB.
pub const SHARD: usize = 10_000;

const SCHEMA: &str = "message faces {
    required binary photo_id (UTF8);
    required binary label (UTF8);
    required binary crop (UTF8);
    required binary original (UTF8);
    required binary face (JSON);
}";
/// The position of the column `face`.
const FACE: usize = 4;

/// What tells the faces of two versions apart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FaceKey {
    pub photo_id: Id,
    pub label: String,
    #[serde(rename = "crop_sha256")]
    pub crop: ContentHash,
}

/// A face on its way into a shard.
pub struct FrozenFace {
    pub face: Face,
    /// The face as JSON.
    pub text: Bytes,
}

impl FrozenFace {
    const USUAL_BYTES: usize = 4096;

    pub fn new(face: Face) -> serde_json::Result<Self> {
        let mut text = Vec::with_capacity(Self::USUAL_BYTES);
        serde_json::to_writer(&mut text, &face)?;
        Ok(Self { text: text.into(), face })
    }
}

/// A shard, ready to be written.
pub struct EncodedShard {
    pub frozen: Vec<FrozenFace>,
    pub file: Bytes,
}

impl EncodedShard {
    pub fn of(faces: Vec<Face>) -> Result<Self, ParquetError> {
        let frozen: serde_json::Result<Vec<FrozenFace>> = faces.into_iter().map(FrozenFace::new).collect();
        let frozen = frozen.map_err(|error| ParquetError::External(Box::new(error)))?;
        let file = encode(&frozen)?.into();
        Ok(Self { frozen, file })
    }
}

/// The file of a shard. The same faces give the same bytes.
pub fn encode(faces: &[FrozenFace]) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(false)
        .set_created_by("facemill".to_owned())
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    let columns: [fn(&FrozenFace) -> ByteArray; 5] = [
        |frozen| ByteArray::from(frozen.face.photo_id.as_str()),
        |frozen| ByteArray::from(label_of(&frozen.face)),
        |frozen| ByteArray::from(frozen.face.crop.to_string().into_bytes()),
        |frozen| ByteArray::from(frozen.face.original.to_string().into_bytes()),
        |frozen| ByteArray::from(frozen.text.clone()),
    ];
    for value in columns {
        let values: Vec<ByteArray> = faces.iter().map(value).collect();
        let mut column = group.next_column()?.ok_or_else(|| wrong("the schema has fewer columns"))?;
        column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

/// The keys of the faces of a shard.
pub fn keys(shard: Bytes) -> Result<Vec<FaceKey>, ParquetError> {
    let reader = SerializedFileReader::new(shard)?;
    let (ids, labels, crops) = (texts(&reader, 0)?, texts(&reader, 1)?, texts(&reader, 2)?);
    let rows = ids.into_iter().zip(labels).zip(crops);
    let key = |((id, label), crop): ((String, String), String)| {
        let crop = crop.parse().map_err(|error| wrong(format!("crop of photo {}: {error}", id.printable())))?;
        Ok(FaceKey { photo_id: Id::from(id.as_str()), label, crop })
    };
    rows.map(key).collect()
}

/// The faces of a shard as JSON, each with its photo id.
pub fn faces(shard: Bytes) -> Result<Vec<(String, String)>, ParquetError> {
    let reader = SerializedFileReader::new(shard)?;
    Ok(texts(&reader, 0)?.into_iter().zip(texts(&reader, FACE)?).collect())
}

fn texts(reader: &SerializedFileReader<Bytes>, column: usize) -> Result<Vec<String>, ParquetError> {
    let mut all = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        let rows = usize::try_from(group.metadata().num_rows()).map_err(|_| wrong("a negative number of rows"))?;
        let ColumnReader::ByteArrayColumnReader(mut values) = group.get_column_reader(column)? else {
            return Err(wrong("a column is not text"));
        };
        let mut bytes = Vec::new();
        while bytes.len() < rows {
            let before = bytes.len();
            values.read_records(rows - before, None, None, &mut bytes)?;
            if bytes.len() == before {
                return Err(wrong("a column has too few values"));
            }
        }
        for value in &bytes {
            all.push(value.as_utf8()?.to_owned());
        }
    }
    Ok(all)
}

fn wrong(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}
