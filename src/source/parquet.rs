//! Reads a table of photos in a Parquet file, as collections of images and texts come.
//!
//! The file may come from a stranger. The sizes that it declares are checked before anything is decoded: see
//! [`parquet_pages`](super::parquet_pages).

use std::borrow::Cow;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::error::SourceError;
use super::mapping::Mapping;
use super::parquet_pages::{self, Damage};
use super::stream::Progress;
use super::table_columns::{PhotoRows, TableColumns};
use facemill_domain::Candidate;

/// The first bytes of a Parquet file.
pub const MAGIC: &[u8] = b"PAR1";

/// The longest value that is read, in bytes.
const MAX_VALUE: usize = 64 << 10;
/// Texts that are kept of a small file, in bytes. A larger file may have [`TEXT_RATIO`] times its size.
const MIN_TEXTS: u64 = 64 << 20;
const TEXT_RATIO: u64 = 200;

/// Reads the rows in order.
pub fn read(path: &Path, mapping: &Mapping, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Candidate>, SourceError> {
    // The decoder is careful with damaged files, but nobody has proved that it never panics.
    catch_unwind(AssertUnwindSafe(|| read_file(path, mapping, progress)))
        .unwrap_or_else(|_| Err(damaged("the decoder failed")))
}

fn read_file(
    path: &Path,
    mapping: &Mapping,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    let failed = |error| SourceError::Io { what: path.display().to_string(), error };
    let file = File::open(path).map_err(failed)?;
    let size = parquet_pages::check_footer(&file)?;
    let reader = SerializedFileReader::new(file.try_clone().map_err(failed)?).map_err(damaged)?;
    let metadata = reader.metadata();
    parquet_pages::check_rows(metadata, size)?;
    let schema = metadata.file_metadata().schema();
    let header: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
    let columns = TableColumns::find(&header, mapping)?;
    let mut read: Vec<usize> = columns.indices().collect();
    read.sort_unstable();
    read.dedup();
    if let Some(nested) = read.iter().find(|index| !schema.get_fields()[**index].is_primitive()) {
        let name = header[*nested];
        return Err(SourceError::Unfit(vec![format!("column `{name}` has lists or structures, not texts or numbers")]));
    }
    let fields = read.iter().map(|index| schema.get_fields()[*index].clone()).collect();
    let projection =
        Type::group_type_builder(schema.name()).with_fields(fields).build().map(Arc::new).map_err(damaged)?;

    let mut rows = PhotoRows::default();
    let (mut row_number, mut texts) = (0, 0);
    let most_texts = MIN_TEXTS.max(TEXT_RATIO.saturating_mul(size));
    for group in 0..metadata.num_row_groups() {
        for column in metadata.row_group(group).columns() {
            let leaf = column.column_path().parts();
            if read.iter().any(|index| leaf == [header[*index]]) {
                parquet_pages::check_pages(&file, column, metadata.row_group(group).num_rows())?;
            }
        }
        let group = reader.get_row_group(group).map_err(damaged)?;
        let projection = Some(Type::clone(&projection));
        for row in group.get_row_iter(projection).map_err(damaged)? {
            row_number += 1;
            let at = |detail: String| SourceError::Unknown(format!("row {row_number} of the Parquet file: {detail}"));
            let mut fields: Vec<(String, Field)> = row.map_err(damaged)?.into_columns();
            let mut fault = None;
            let picked = columns.pick(|index| {
                let field = fields.iter_mut().find(|(name, _)| name == header[index]);
                let value = text(field.map_or(Field::Null, |(_, field)| field.clone()));
                value.unwrap_or_else(|detail| fault.replace(format!("`{}` {detail}", header[index])).and(None))
            });
            if let Some(fault) = fault {
                return Err(at(fault));
            }
            let values = picked.result.iter().chain(&picked.kept).flatten();
            texts += values.map(|value| value.len() as u64).sum::<u64>();
            if texts > most_texts {
                return Err(at(format!("the texts so far have more than {most_texts} bytes")));
            }
            rows.add(&columns, picked).map_err(at)?;
            if row_number % 4096 == 0 {
                progress(Progress { bytes: 0, total: Some(size), rows: row_number });
            }
        }
    }
    progress(Progress { bytes: size, total: Some(size), rows: row_number });
    Ok(rows.finish())
}

/// The text of a value. None: NULL.
fn text(field: Field) -> Result<Option<Cow<'static, str>>, String> {
    let text = match field {
        Field::Null => return Ok(None),
        Field::Str(text) => text,
        Field::Bytes(bytes) => {
            String::from_utf8(bytes.data().to_vec()).map_err(|_| "contains invalid UTF-8".to_owned())?
        }
        number => number.to_string(),
    };
    match text.len() <= MAX_VALUE {
        true => Ok(Some(text.into())),
        false => Err(format!("has {} bytes, which is more than {MAX_VALUE}", text.len())),
    }
}

fn damaged(error: impl std::fmt::Display) -> SourceError {
    let error = error.to_string();
    match error.contains("Disabled feature") {
        true => Damage::new("its compression is not read: write it with Snappy, gzip or zstd").into(),
        false => Damage::new(error).into(),
    }
}

#[cfg(test)]
mod tests {
    use parquet::basic::{Compression, GzipLevel, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    const SCHEMA: &str =
        "message photos { required int64 key; optional binary URL (UTF8); optional binary LICENSE (UTF8); }";

    /// A file with rows in two groups. A licence that is empty is NULL.
    fn file(compression: Compression, version: WriterVersion, urls: &[&str]) -> Vec<u8> {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = WriterProperties::builder().set_compression(compression).set_writer_version(version).build();
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
        for half in urls.chunks(urls.len().div_ceil(2).max(1)) {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let keys: Vec<i64> = (0..half.len() as i64).collect();
            column.typed::<Int64Type>().write_batch(&keys, None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let texts: Vec<ByteArray> = half.iter().map(|url| ByteArray::from(*url)).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, Some(&vec![1; half.len()]), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let levels: Vec<i16> = (0..half.len() as i16).map(|row| row % 2).collect();
            let texts = vec![ByteArray::from("by"); half.len() / 2];
            column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
        bytes
    }

    fn read_bytes(bytes: &[u8], map: &[&str], keep: &[&str]) -> Result<Vec<Candidate>, SourceError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mapping = Mapping::parse(map).unwrap().keep(keep).unwrap();
        read(file.path(), &mapping, &mut |_| {})
    }

    const URLS: [&str; 5] = ["http://x/1", "http://x/2", "http://x/宇", "http://x/2", "http://x/5"];

    #[test]
    fn every_codec_gives_the_same_rows() {
        let codecs = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ];
        for codec in codecs {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                let photos = read_bytes(&file(codec, version, &URLS), &[], &["LICENSE"]).unwrap();
                let urls: Vec<&str> = photos.iter().map(|photo| photo.photo_url.as_str()).collect();
                assert_eq!(urls, ["http://x/1", "http://x/2", "http://x/宇", "http://x/5"], "{codec:?}");
                let licences: Vec<_> = photos.iter().map(|photo| photo.columns.get("LICENSE")).collect();
                assert_eq!(licences, [None, Some(&"by".to_owned()), None, Some(&"by".to_owned())]);
            }
        }
    }

    #[test]
    fn names_are_mapped() {
        let bytes = file(Compression::SNAPPY, WriterVersion::PARQUET_1_0, &URLS[..1]);
        let photos = read_bytes(&bytes, &["photos.id=key", "labels.name=LICENSE"], &[]).unwrap();
        assert_eq!((photos[0].photo_id.as_str(), photos[0].label_name.as_deref()), ("0", None));
        let error = read_bytes(&bytes, &["photos.photo_url=link"], &[]).unwrap_err().to_string();
        assert!(error.contains("column `link` is missing, found key, URL, LICENSE"), "{error}");
    }

    #[test]
    fn damaged_files_are_errors() {
        let bytes = file(Compression::GZIP(GzipLevel::default()), WriterVersion::PARQUET_1_0, &URLS);
        for length in [4, 8, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(read_bytes(&bytes[..length], &[], &[]).is_err(), "{length}");
        }
        let whole = read_bytes(&bytes, &[], &["LICENSE"]).unwrap();
        // Any byte may be wrong: the answer is an error or a table, but no panic, and no row too many.
        for at in 4..bytes.len() {
            for wrong in [0x00, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= wrong;
                if let Ok(photos) = read_bytes(&changed, &[], &["LICENSE"]) {
                    assert!(photos.len() <= whole.len() + 1, "{at}: {}", photos.len());
                }
            }
        }
    }

    #[test]
    fn a_value_has_a_longest_length() {
        let long = format!("http://x/{}", "y".repeat(MAX_VALUE));
        let bytes = file(Compression::SNAPPY, WriterVersion::PARQUET_1_0, &["http://x/1", &long]);
        let error = read_bytes(&bytes, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("row 2 of the Parquet file: `URL` has 65545 bytes"), "{error}");
    }
}
