//! Faces and endings as rows of the index file.

use std::collections::BTreeMap;
use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement, params};

use super::columns::{ColumnValues, Columns};
use super::ending::{EndedPhoto, EndingCount};
use super::face::{Face, FaceVerdict, Number, Text};
use super::group_place::group_place;
use crate::domain::{CauseCode, ContentHash, Fingerprint, Id, Landmarks, Quality};
use crate::source::timestamp::Timestamp;

pub const ADD_FACE: &str = "INSERT INTO faces VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
    ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, \
    ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43, ?44, ?45, ?46, ?47)";
pub const ADD_PREDICTION: &str = "INSERT OR REPLACE INTO predictions SELECT key, ?2, ?3 FROM faces WHERE key = ?1";
pub const ADD_ENDING: &str = "INSERT INTO endings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
    ?11, ?12)";
pub const SELECT_FACE: &str = "SELECT faces.*, predictions.*, \
    (SELECT coalesce(sum(photos), 1) FROM originals WHERE originals.original = faces.original), \
    (SELECT max(count(nullif(label, '')), 1) FROM originals WHERE originals.original = faces.original), \
    judgement, reason, judged_by, judged_on, identity \
    FROM faces LEFT JOIN predictions ON face = key LEFT JOIN crop_verdicts ON crop_verdicts.crop = faces.crop \
    LEFT JOIN identities ON identities.crop = faces.crop";
/// How many photos and labels have an original.
pub const SELECT_SHARED: &str = "SELECT coalesce(sum(photos), 0), max(count(nullif(label, '')), 1) \
    FROM originals WHERE original = ?1";
/// The originals of placeholders, with the numbers of their photos, labels and faces. ?1 and ?2: the least numbers of
/// labels and photos.
pub const SELECT_PLACEHOLDERS: &str = "SELECT original, photos, labels, \
    (SELECT count(*) FROM faces WHERE faces.original = shared.original) \
    FROM (SELECT original, sum(photos) AS photos, count(nullif(label, '')) AS labels FROM originals \
    GROUP BY original HAVING count(nullif(label, '')) >= ?1 OR sum(photos) >= ?2) AS shared ORDER BY photos DESC, original";
pub const SELECT_ENDED: &str = "SELECT photo_id, photo_url, ending, stage, cause, attempt FROM endings \
    ORDER BY bytes, photo_id";
pub const SELECT_UNRECORDED: &str = "SELECT photo_id FROM endings WHERE NOT recorded ORDER BY bytes, photo_id LIMIT ?1";

/// Seconds since 1970, where the text is a time.
pub fn published(text: Option<&str>) -> Option<i64> {
    match Timestamp::parse(text) {
        Timestamp::At(seconds, _) => Some(seconds),
        _ => None,
    }
}

pub fn insert(statement: &mut Statement<'_>, face: &Face, published: Option<i64>) -> rusqlite::Result<()> {
    let landmarks: Vec<u8> = face.landmarks.iter().flatten().flat_map(|c| c.to_le_bytes()).collect();
    let quality = face.quality.as_ref();
    let columns = (!face.columns.is_empty()).then(|| serde_json::json!(face.columns).to_string());
    let values = params![
        face.photo_id.as_str(),
        face.face_id.as_str(),
        face.label_id.as_str(),
        face.label_name,
        face.photo_url,
        face.source_url,
        face.posted_at,
        published,
        Text::Host.of(face),
        face.original.as_bytes(),
        face.original_format.extension(),
        face.original_bytes as i64,
        face.width,
        face.height,
        face.search.as_str(),
        face.score,
        face.faces,
        face.crop.as_bytes(),
        face.format.extension(),
        face.align.as_str(),
        face.angle,
        face.centre[0],
        face.centre[1],
        face.side,
        face.size,
        face.mirrored,
        face.mirrored_head,
        face.blur,
        face.exposure,
        landmarks,
        face.source,
        columns,
        face.damaged,
        quality.map(|quality| quality.contrast),
        quality.map(|quality| quality.saturation),
        quality.map(|quality| quality.face_blur),
        quality.and_then(|quality| quality.jpeg_quality),
        quality.map(|quality| quality.yaw),
        quality.map(|quality| quality.pitch),
        quality.map(|quality| quality.eyes_open),
        quality.map(|quality| quality.mouth_open),
        quality.map(|quality| quality.outlier),
        quality.map(|quality| quality.pixels.as_bytes()),
        face.opt_out,
        face.fill.as_str(),
        face.fingerprint.map(Fingerprint::bytes),
        face.landmark_scheme.as_str(),
    ];
    statement.execute(values).map(drop)
}

/// A face from a row of [`SELECT_FACE`]. Columns are looked up by number: by name, each look-up compares all names.
pub fn face(row: &Row<'_>) -> rusqlite::Result<Face> {
    let text = |column| row.get::<_, String>(column);
    Ok(Face {
        photo_id: Id::new(text(1)?),
        face_id: Id::new(text(2)?),
        label_id: Id::new(text(3)?),
        label_name: row.get(4)?,
        photo_url: text(5)?,
        source_url: row.get(6)?,
        posted_at: row.get(7)?,
        original: hash(row, 10)?,
        original_format: word(row, 11)?,
        original_bytes: row.get::<_, i64>(12)? as u64,
        width: row.get(13)?,
        height: row.get(14)?,
        search: word(row, 15)?,
        landmark_scheme: word(row, 47)?,
        score: row.get(16)?,
        faces: row.get(17)?,
        crop: hash(row, 18)?,
        format: word(row, 19)?,
        align: word(row, 20)?,
        angle: row.get(21)?,
        centre: [row.get(22)?, row.get(23)?],
        side: row.get(24)?,
        size: row.get(25)?,
        landmarks: landmarks(row, 30)?,
        mirrored: row.get(26)?,
        mirrored_head: row.get(27)?,
        blur: row.get(28)?,
        exposure: row.get(29)?,
        source: row.get(31)?,
        columns: columns(row, 32)?,
        damaged: row.get(33)?,
        quality: quality(row)?,
        opt_out: row.get(44)?,
        fill: word(row, 45)?,
        fingerprint: row.get::<_, Option<[u8; 16]>>(46)?.map(Fingerprint::from_bytes),
        p_ok: row.get(49)?,
        model: row.get(50)?,
        shared_photos: row.get(51)?,
        shared_labels: row.get(52)?,
        verdict: verdict(row)?,
        identity: row.get(57)?,
    })
}

/// From pairs of little-endian floats.
pub fn landmarks(row: &Row<'_>, column: usize) -> rusqlite::Result<Landmarks> {
    let (points, _) = row.get_ref(column)?.as_blob()?.as_chunks::<8>();
    let point = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| [[a, b, c, d], [e, f, g, h]].map(f32::from_le_bytes);
    Ok(points.iter().map(point).collect())
}

/// From the columns 34 to 43; none if the crop is not measured.
fn quality(row: &Row<'_>) -> rusqlite::Result<Option<Quality>> {
    if row.get_ref(43)? == ValueRef::Null {
        return Ok(None);
    }
    Ok(Some(Quality {
        contrast: row.get(34)?,
        saturation: row.get(35)?,
        face_blur: row.get(36)?,
        jpeg_quality: row.get(37)?,
        yaw: row.get(38)?,
        pitch: row.get(39)?,
        eyes_open: row.get(40)?,
        mouth_open: row.get(41)?,
        outlier: row.get(42)?,
        pixels: hash(row, 43)?,
    }))
}

/// A JSON object of texts; NULL is an empty one.
fn columns(row: &Row<'_>, column: usize) -> rusqlite::Result<BTreeMap<String, String>> {
    let text: Option<String> = row.get(column)?;
    let bad = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    text.map_or_else(|| Ok(BTreeMap::new()), |text| serde_json::from_str(&text).map_err(bad))
}

/// From the columns 53 to 56; none if the crop is not judged.
fn verdict(row: &Row<'_>) -> rusqlite::Result<Option<FaceVerdict>> {
    if row.get_ref(53)? == ValueRef::Null {
        return Ok(None);
    }
    let reason = if row.get_ref(54)? == ValueRef::Null { None } else { Some(word(row, 54)?) };
    Ok(Some(FaceVerdict { judgement: word(row, 53)?, reason, by: row.get(55)?, day: row.get(56)? }))
}

/// From a row of [`SELECT_ENDED`].
pub fn ended_photo(row: &Row<'_>) -> rusqlite::Result<EndedPhoto> {
    Ok(EndedPhoto {
        photo_id: Id::new(row.get::<_, String>(0)?),
        photo_url: row.get(1)?,
        ending: word(row, 2)?,
        stage: word(row, 3)?,
        cause: cause(row, 4)?,
        attempt: row.get(5)?,
    })
}

/// From a row of `ending_counts`.
pub fn ending_count(row: &Row<'_>) -> rusqlite::Result<EndingCount> {
    Ok(EndingCount {
        ending: word(row, 0)?,
        stage: word(row, 1)?,
        cause: cause(row, 2)?,
        host: row.get(3)?,
        downloaded: row.get(4)?,
        photos: row.get::<_, i64>(5)? as u64,
    })
}

fn cause(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<CauseCode>> {
    let code: String = row.get(column)?;
    Ok((!code.is_empty()).then(|| code.into()))
}

/// The columns of all faces, in the order of their keys.
pub fn read_columns(connection: &Connection) -> rusqlite::Result<Columns> {
    let mut columns = Columns::default();
    let mut rows = connection.prepare(
        "SELECT key, photo_id, published, p_ok, size, angle, score, faces, mirrored, mirrored_head, blur, exposure, side,
         width, height, original_bytes, coalesce(photos, 1), coalesce(labels, 1), contrast, saturation,
         face_blur, jpeg_quality, yaw, pitch, eyes_open, mouth_open, outlier, damage IS NOT NULL,
         identity, label_name, label_id, host, model, search, landmark_scheme, align, fill, format, judgement, reason, judged_by, judged_on,
         opt_out, source, pixels, of_group, place
         FROM faces LEFT JOIN predictions ON face = key
         LEFT JOIN (SELECT original AS shared, sum(photos) AS photos, max(count(nullif(label, '')), 1) AS labels FROM originals
                    GROUP BY original HAVING sum(photos) > 1) ON shared = original
         LEFT JOIN crop_verdicts ON crop_verdicts.crop = faces.crop
         LEFT JOIN duplicates ON duplicates.crop = faces.crop
         LEFT JOIN identities ON identities.crop = faces.crop
         ORDER BY key",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let mut numbers = [0.0; Number::ALL.len()];
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = match row.get_ref(3 + at)? {
                ValueRef::Integer(value) => value as f32,
                ValueRef::Real(value) => value as f32,
                _ => f32::NAN,
            };
        }
        let mut texts = [const { None }; Text::ALL.len()];
        for (at, text) in texts.iter_mut().enumerate() {
            *text = row.get(3 + Number::ALL.len() + at)?;
        }
        let id = Id::new(row.get::<_, String>(1)?);
        let pixels_column = 3 + Number::ALL.len() + Text::ALL.len();
        let pixels: Option<[u8; 32]> = row.get(pixels_column)?;
        let pixels = pixels.map(ContentHash::from_digest);
        let group = group_place(row, pixels_column + 1)?;
        columns.upsert(row.get(0)?, ColumnValues { id, numbers, texts, published: row.get(2)?, pixels, group });
    }
    Ok(columns)
}

pub fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<ContentHash> {
    row.get::<_, [u8; 32]>(column).map(ContentHash::from_digest)
}

/// A value that is stored by its name.
pub fn word<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let bad = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    row.get_ref(column)?.as_str()?.parse().map_err(bad)
}
