//! A small photo database, and its dump.

use std::collections::BTreeMap;
use std::fmt::Write;

use facemill_domain::calendar;

/// The start of the collection: 2016-01-01 00:00:00 UTC, in seconds since 1970.
pub const START: u64 = 1_451_606_400;

/// The rows of the three tables. Ids start at 1.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    pub photos: Vec<PhotoRow>,
    pub faces: Vec<FaceRow>,
    /// Names. The first has id 1.
    pub labels: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct PhotoRow {
    pub id: usize,
    pub source_url: Option<String>,
    pub photo_url: String,
    pub caption: String,
    /// Seconds since 1970, UTC.
    pub posted_at: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct FaceRow {
    pub id: usize,
    pub photo_id: usize,
    pub label_id: Option<usize>,
    /// The tilt that an earlier detector measured, in degrees.
    pub angle: f64,
    pub updated_at: u64,
}

impl Collection {
    /// The number of photos with exactly one labelled face.
    pub fn candidates(&self) -> usize {
        let mut labelled = BTreeMap::new();
        for face in self.faces.iter().filter(|face| face.label_id.is_some()) {
            *labelled.entry(face.photo_id).or_insert(0) += 1;
        }
        labelled.values().filter(|&&count| count == 1).count()
    }
}

const TABLES: &str = "\
CREATE TABLE public.labels (
    id integer NOT NULL,
    name character varying(255),
    description text,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL
);

CREATE TABLE public.photos (
    id integer NOT NULL,
    source_url character varying(1024),
    photo_url character varying(1024) NOT NULL,
    caption text,
    posted_at timestamp without time zone,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL
);

CREATE TABLE public.faces (
    id integer NOT NULL,
    photo_id integer,
    label_id integer,
    data bytea,
    json text,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL
);
";

/// Formats the collection as PostgreSQL dumps it in plain text, with one COPY per table.
pub fn postgres(collection: &Collection) -> String {
    let begun = calendar::second(START);
    let mut text = format!(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\
         SET standard_conforming_strings = on;\n\n{TABLES}\n"
    );
    copy(&mut text, "faces (id, photo_id, label_id, data, json, created_at, updated_at)", &collection.faces, |face| {
        let json = format!("{{\"angle\": {:.3}, \"note\": \"a;b\"}}", face.angle);
        let data = format!("\\x{:08x}", face.id);
        let label = face.label_id.map(|id| id.to_string());
        let updated = calendar::second(face.updated_at);
        let known = [face.id.to_string(), face.photo_id.to_string()].map(Some);
        [&known[..], &[label], &[data, json, begun.clone(), updated].map(Some)].concat()
    });
    let labels: Vec<_> = collection.labels.iter().enumerate().collect();
    copy(&mut text, "labels (id, name, description, created_at, updated_at)", &labels, |(index, name)| {
        let name = Some((*name).clone());
        vec![Some((index + 1).to_string()), name, None, Some(begun.clone()), Some(begun.clone())]
    });
    let columns = "photos (id, source_url, photo_url, caption, posted_at, created_at, updated_at)";
    copy(&mut text, columns, &collection.photos, |photo| {
        let url = Some(photo.photo_url.clone());
        let caption = Some(photo.caption.clone());
        let posted = photo.posted_at.map(calendar::second);
        let id = Some(photo.id.to_string());
        vec![id, photo.source_url.clone(), url, caption, posted, Some(begun.clone()), Some(begun.clone())]
    });
    text.push_str("--\n-- PostgreSQL database dump complete\n--\n");
    text
}

fn copy<R>(text: &mut String, table: &str, rows: &[R], values: impl Fn(&R) -> Vec<Option<String>>) {
    let _ = writeln!(text, "COPY public.{table} FROM stdin;");
    for row in rows {
        let fields: Vec<_> = values(row).iter().map(|value| field(value.as_deref())).collect();
        let _ = writeln!(text, "{}", fields.join("\t"));
    }
    text.push_str("\\.\n\n");
}

/// Formats a value in COPY's text format.
fn field(value: Option<&str>) -> String {
    match value {
        Some(text) => text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r"),
        None => "\\N".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_fields_are_escaped() {
        assert_eq!(field(None), "\\N");
        assert_eq!(field(Some("\\N")), "\\\\N");
        assert_eq!(field(Some("a\tb\nc\\d 宇佐美 \"q\" O'Neill")), "a\\tb\\nc\\\\d 宇佐美 \"q\" O'Neill");
    }

    #[test]
    fn candidates_have_exactly_one_labelled_face() {
        let face = |id, photo_id, label_id| FaceRow { id, photo_id, label_id, angle: 0.0, updated_at: START };
        let faces = vec![
            face(1, 1, Some(1)),
            face(2, 2, Some(1)),
            face(3, 2, None),
            face(4, 3, Some(1)),
            face(5, 3, Some(2)),
            face(6, 4, None),
        ];
        assert_eq!(Collection { faces, ..Collection::default() }.candidates(), 2);
    }
}
