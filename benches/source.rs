//! The speed of reading dumps: `cargo bench --bench source`.
//!
//! Prints MB/s of uncompressed dump for four dumps: COPY, and INSERT with many rows, both with the proportions of the
//! original collection (photos, then more faces, a tenth of them labelled); INSERT with one row and column names; and a
//! dump that consists mostly of unused tables.

use std::fmt::Write;
use std::io::Cursor;
use std::time::Instant;

use facemill::source::{self, Options};

const PHOTOS: u64 = 300_000;
const FACES: u64 = 390_000;
const LABELS: u64 = 1_250;

fn main() {
    for (name, dump) in [("COPY", copy()), ("INSERT", insert()), ("one each", one_each()), ("other tables", other())] {
        let megabytes = dump.len() as f64 / 1e6;
        let mut best = f64::INFINITY;
        let mut found = 0;
        for _ in 0..3 {
            let reader = Cursor::new(dump.clone());
            let started = Instant::now();
            found = source::candidates_from(reader, &Options::default(), &mut |_| {}).expect("a whole dump").len();
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!("{name:>12}: {:>5.0} MB/s ({megabytes:.0} MB, {found} candidates)", megabytes / best);
    }
}

/// A pseudorandom number that is the same in every run.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Calls `show` for every row of a table. A text starts with a quote, and `None` is NULL.
fn rows(table: &str, mut show: impl FnMut(&[Option<String>])) {
    let time = |seed: u64| {
        let at = |range: u64, shift: u32| (mix(seed) >> shift) % range;
        format!("2016-{:02}-{:02} {:02}:{:02}:00", at(12, 3) + 1, at(28, 11) + 1, at(24, 19), at(60, 27))
    };
    match table {
        "labels" => {
            (1..=LABELS).for_each(|id| show(&[Some(id.to_string()), Some(format!("'O\u{2019}Neill 宇佐美 {id}"))]))
        }
        "photos" => (1..=PHOTOS).for_each(|id| {
            let hash = mix(id);
            show(&[
                Some(id.to_string()),
                Some(format!("'http://social.test/user{}/status/{hash}", hash % 1250)),
                Some(format!("'http://photos.test/media/{hash:016x}.jpg")),
                Some(format!("'{}", time(id))),
            ]);
        }),
        _ => (1..=FACES).for_each(|id| {
            let hash = mix(id + PHOTOS);
            show(&[
                Some(id.to_string()),
                Some((hash % PHOTOS + 1).to_string()),
                (hash >> 40).is_multiple_of(10).then(|| (hash % LABELS + 1).to_string()),
                Some(format!("'{{\"angle\": {}, \"box\": [{}, {}, 96, 96]}}", hash % 97, hash % 700, hash % 900)),
                Some(format!("'{}", time(hash))),
            ]);
        }),
    }
}

const TABLES: [(&str, &str); 3] = [
    ("labels", "id, name"),
    ("photos", "id, source_url, photo_url, posted_at"),
    ("faces", "id, photo_id, label_id, json, updated_at"),
];

fn copy() -> Vec<u8> {
    let mut dump = String::new();
    for (table, columns) in TABLES {
        copy_table(&mut dump, table, table, columns);
    }
    dump.into_bytes()
}

fn copy_table(dump: &mut String, name: &str, table: &str, columns: &str) {
    let _ = writeln!(dump, "COPY public.{name} ({columns}) FROM stdin;");
    rows(table, |values| {
        for (i, value) in values.iter().enumerate() {
            dump.push_str(if i > 0 { "\t" } else { "" });
            dump.push_str(value.as_deref().map_or("\\N", |value| value.trim_start_matches('\'')));
        }
        dump.push('\n');
    });
    dump.push_str("\\.\n\n");
}

fn insert() -> Vec<u8> {
    let mut dump = String::new();
    for (table, columns) in TABLES {
        insert_table(&mut dump, table, table, columns);
    }
    dump.into_bytes()
}

fn insert_table(dump: &mut String, name: &str, table: &str, columns: &str) {
    let columns: Vec<String> = columns.split(", ").map(|column| format!("  `{column}` text")).collect();
    let _ = writeln!(dump, "CREATE TABLE `{name}` (\n{}\n);", columns.join(",\n"));
    let mut statement = 0;
    rows(table, |values| {
        if dump.len() - statement > 1_000_000 || dump.ends_with(");\n") {
            dump.push_str(if dump.ends_with(");\n") { "" } else { ";\n" });
            statement = dump.len();
            let _ = write!(dump, "INSERT INTO `{name}` VALUES ");
        } else {
            dump.push(',');
        }
        dump.push('(');
        for (i, value) in values.iter().enumerate() {
            dump.push_str(if i > 0 { "," } else { "" });
            match value.as_deref() {
                None => dump.push_str("NULL"),
                Some(text) if text.starts_with('\'') => {
                    let _ = write!(dump, "'{}'", text[1..].replace('"', "\\\""));
                }
                Some(number) => dump.push_str(number),
            }
        }
        dump.push(')');
    });
    dump.push_str(";\n");
}

fn one_each() -> Vec<u8> {
    let mut dump = String::new();
    for (table, columns) in TABLES {
        rows(table, |values| {
            let _ = write!(dump, "INSERT INTO public.{table} ({columns}) VALUES (");
            for (i, value) in values.iter().enumerate() {
                dump.push_str(if i > 0 { ", " } else { "" });
                dump.push_str(value.as_deref().unwrap_or("NULL"));
                dump.push_str(if value.as_deref().is_some_and(|value| value.starts_with('\'')) { "'" } else { "" });
            }
            dump.push_str(");\n");
        });
    }
    dump.into_bytes()
}

/// The same amount of data in unused tables, and small tables of photos, faces and labels.
fn other() -> Vec<u8> {
    let mut dump = String::new();
    insert_table(&mut dump, "old_faces", "faces", TABLES[2].1);
    insert_table(&mut dump, "old_photos", "photos", TABLES[1].1);
    for (table, columns) in TABLES {
        let columns: Vec<String> = columns.split(", ").map(|column| format!("`{column}` text")).collect();
        let _ = writeln!(dump, "CREATE TABLE `{table}` ({});", columns.join(", "));
    }
    dump.push_str("INSERT INTO `labels` VALUES (1,'Ana');\nINSERT INTO `photos` VALUES (1,NULL,'http://x',NULL);\n");
    dump.push_str("INSERT INTO `faces` VALUES (1,1,1,NULL,'2016-01-01 00:00:00');\n");
    dump.into_bytes()
}
