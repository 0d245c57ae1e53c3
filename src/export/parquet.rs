//! A Parquet file with embedded pictures, as the `datasets` library of Hugging Face writes them.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::entry::Entry;
use crate::dataset::Face;
use crate::domain::Quality;

/// Rows in a row group, which readers load as a whole.
const ROW_GROUP: usize = 100;

/// The columns, in the order in which they are written.
const SCHEMA: &str = "message faces {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    required binary photo_id (UTF8);
    required binary label (UTF8);
    optional int64 class;
    required binary photo_url (UTF8);
    optional binary source_url (UTF8);
    required binary crop_sha256 (UTF8);
    required int64 crop_size;
    optional double p_ok;
    optional binary verdict (UTF8);
    required double score;
    required double mirrored;
    required double mirrored_head;
    required double blur;
    required double exposure;
    optional double contrast;
    optional double saturation;
    optional double face_blur;
    optional double yaw;
    optional double pitch;
    optional double eyes_open;
    optional double mouth_open;
    optional double outlier;
    optional int64 jpeg_quality;
}";

/// What the `datasets` library reads the columns as.
const FEATURES: &str = r#"{"info": {"features": {
    "image": {"_type": "Image"},
    "photo_id": {"dtype": "string", "_type": "Value"},
    "label": {"dtype": "string", "_type": "Value"},
    "class": {"dtype": "int64", "_type": "Value"},
    "photo_url": {"dtype": "string", "_type": "Value"},
    "source_url": {"dtype": "string", "_type": "Value"},
    "crop_sha256": {"dtype": "string", "_type": "Value"},
    "crop_size": {"dtype": "int64", "_type": "Value"},
    "p_ok": {"dtype": "float64", "_type": "Value"},
    "verdict": {"dtype": "string", "_type": "Value"},
    "score": {"dtype": "float64", "_type": "Value"},
    "mirrored": {"dtype": "float64", "_type": "Value"},
    "mirrored_head": {"dtype": "float64", "_type": "Value"},
    "blur": {"dtype": "float64", "_type": "Value"},
    "exposure": {"dtype": "float64", "_type": "Value"},
    "contrast": {"dtype": "float64", "_type": "Value"},
    "saturation": {"dtype": "float64", "_type": "Value"},
    "face_blur": {"dtype": "float64", "_type": "Value"},
    "yaw": {"dtype": "float64", "_type": "Value"},
    "pitch": {"dtype": "float64", "_type": "Value"},
    "eyes_open": {"dtype": "float64", "_type": "Value"},
    "mouth_open": {"dtype": "float64", "_type": "Value"},
    "outlier": {"dtype": "float64", "_type": "Value"},
    "jpeg_quality": {"dtype": "int64", "_type": "Value"}
}}}"#;

type NumberOf = fn(&Face) -> f64;
type QualityOf = fn(&Quality) -> f64;

/// The numbers of every crop, in the order of the columns.
const NUMBERS: [NumberOf; 5] =
    [|face| face.score, |face| face.mirrored, |face| face.mirrored_head, |face| face.blur, |face| face.exposure];

/// The numbers that crops of earlier versions lack, in the order of the columns.
const QUALITY: [QualityOf; 8] = [
    |quality| quality.contrast,
    |quality| quality.saturation,
    |quality| quality.face_blur,
    |quality| quality.yaw,
    |quality| quality.pitch,
    |quality| quality.eyes_open,
    |quality| quality.mouth_open,
    |quality| quality.outlier,
];

/// Writes a file in order. The same entries give the same bytes.
pub struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<(Entry, Vec<u8>)>,
}

impl<W: Write + Send> ParquetFile<W> {
    pub fn new(to: W) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
        let features = KeyValue::new("huggingface".to_owned(), FEATURES.to_owned());
        let properties = WriterProperties::builder()
            // Pictures are compressed already.
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_key_value_metadata(Some(vec![features]))
            .set_created_by("facemill".to_owned())
            .build();
        let writer = SerializedFileWriter::new(to, schema, Arc::new(properties)).map_err(failed)?;
        Ok(Self { writer, rows: Vec::with_capacity(ROW_GROUP) })
    }

    pub fn add(&mut self, entry: &Entry, picture: Vec<u8>) -> io::Result<()> {
        self.rows.push((entry.clone(), picture));
        if self.rows.len() == ROW_GROUP { self.write_rows().map_err(failed) } else { Ok(()) }
    }

    pub fn finish(mut self) -> io::Result<W> {
        if !self.rows.is_empty() {
            self.write_rows().map_err(failed)?;
        }
        self.writer.into_inner().map_err(failed)
    }

    fn write_rows(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        let pictures: Vec<ByteArray> = rows.iter().map(|(_, picture)| ByteArray::from(picture.clone())).collect();
        // Level 2: neither the group nor its member is null.
        let present = vec![2; rows.len()];
        write_bytes(&mut group, &pictures, Some(&present))?;
        let texts = |text: fn(&Entry) -> &str| rows.iter().map(|(entry, _)| ByteArray::from(text(entry))).collect();
        let names: Vec<ByteArray> = texts(|entry| &entry.name);
        write_bytes(&mut group, &names, Some(&present))?;
        let ids: Vec<ByteArray> = texts(|entry| entry.face.photo_id.as_str());
        write_bytes(&mut group, &ids, None)?;
        let labels: Vec<ByteArray> = texts(|entry| &entry.label);
        write_bytes(&mut group, &labels, None)?;
        write_optional::<Int64Type>(&mut group, rows.iter().map(|(entry, _)| entry.class.map(|class| class as i64)))?;
        let urls: Vec<ByteArray> = texts(|entry| &entry.face.photo_url);
        write_bytes(&mut group, &urls, None)?;
        let sources = rows.iter().map(|(entry, _)| entry.face.source_url.as_deref().map(ByteArray::from));
        write_optional::<ByteArrayType>(&mut group, sources)?;
        let crops: Vec<ByteArray> =
            rows.iter().map(|(entry, _)| ByteArray::from(entry.face.crop.to_string().into_bytes())).collect();
        write_bytes(&mut group, &crops, None)?;
        let sizes: Vec<i64> = rows.iter().map(|(entry, _)| i64::from(entry.face.size)).collect();
        write_column::<Int64Type>(&mut group, &sizes, None)?;
        write_optional::<DoubleType>(&mut group, rows.iter().map(|(entry, _)| entry.face.p_ok))?;
        let verdicts = rows
            .iter()
            .map(|(entry, _)| entry.face.verdict.as_ref().map(|verdict| ByteArray::from(verdict.judgement.as_str())));
        write_optional::<ByteArrayType>(&mut group, verdicts)?;
        for number in NUMBERS {
            let numbers: Vec<f64> = rows.iter().map(|(entry, _)| number(&entry.face)).collect();
            write_column::<DoubleType>(&mut group, &numbers, None)?;
        }
        let quality = || rows.iter().map(|(entry, _)| entry.face.quality.as_ref());
        for number in QUALITY {
            write_optional::<DoubleType>(&mut group, quality().map(|quality| quality.map(number)))?;
        }
        let jpeg = quality().map(|quality| quality.and_then(|quality| quality.jpeg_quality).map(i64::from));
        write_optional::<Int64Type>(&mut group, jpeg)?;
        group.close().map(drop)
    }
}

fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}

fn write_bytes<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[ByteArray],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    write_column::<ByteArrayType>(group, values, levels)
}

fn write_optional<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    write_column::<T>(group, &present, Some(&levels))
}

/// Writes the next column of the schema.
fn write_column<T: parquet::data_type::DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let no_column = || ParquetError::General("the schema has fewer columns than are written".into());
    let mut column = group.next_column()?.ok_or_else(no_column)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}
