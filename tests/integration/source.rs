//! Dumps of every kind, whole and broken. Each gives the result of the query or an error, and nothing else.
//!
//! `tests/integration/source_data` has one small collection with every special case, as three databases dump it. The
//! reference data, if present, has the output of the real tools.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use facemill::domain::Candidate;
use facemill::source::{self, Input, Mapping, Options, SourceError};

const GALLERY: [&str; 3] = ["copy.pg.sql", "inserts.pg.sql", "mysql.sql"];

fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/source_data").join(name)
}

fn gallery(name: &str) -> Vec<u8> {
    fs::read(ours(name)).unwrap()
}

/// The directory of the reference dumps.
fn reference() -> PathBuf {
    support::reference::required_data().join("dumps")
}

const REFERENCE: [&str; 5] =
    ["source.pg.sql", "source.pg-inserts.sql", "source.mysql.sql", "source.mysql-complete.sql", "source.mysql.sql.gz"];

/// Returns at most a fixed number of bytes per read.
struct SlowReader(io::Cursor<Vec<u8>>, usize);

impl Read for SlowReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

fn read_as(dump: &[u8], piece: usize, map: &[&str]) -> Result<Vec<Candidate>, SourceError> {
    let options = Options { mapping: Mapping::parse(map).unwrap(), ..Options::default() };
    source::candidates_from(SlowReader(io::Cursor::new(dump.to_vec()), piece), &options, &mut |_| {})
}

fn read(dump: &[u8]) -> Result<Vec<Candidate>, SourceError> {
    read_as(dump, usize::MAX, &[])
}

fn expected() -> Vec<Candidate> {
    let expected = read(&gallery("expected.csv")).unwrap();
    assert_eq!(expected.len(), 5);
    expected
}

fn facemill(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .arg("candidates")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    let feeder = std::thread::spawn(move || {
        // The program may exit before it has read everything.
        let _ = pipe.write_all(&bytes);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

#[test]
fn all_kinds_of_dumps_give_the_same_candidates() {
    for name in GALLERY {
        assert_eq!(read(&gallery(name)).unwrap(), expected(), "{name}");
        let output = facemill(&[ours(name).to_str().unwrap()], b"");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), fs::read_to_string(ours("expected.csv")).unwrap());
        assert_eq!(output.stderr, b"", "{name}: no progress without a terminal");
    }
}

#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn reference_dumps_give_postgresqls_result_byte_for_byte() {
    let data = reference();
    for name in REFERENCE.into_iter().chain(["source.pg.dump"]) {
        let path = data.join(name);
        for (format, answer) in [("csv", "candidates.csv"), ("tsv", "candidates.tsv")] {
            let answer = fs::read_to_string(data.join(answer)).unwrap();
            let file = facemill(&[path.to_str().unwrap(), "--format", format], b"");
            assert_eq!(String::from_utf8(file.stdout).unwrap(), answer, "{name}");
            let piped = facemill(&["-", "--format", format], &fs::read(&path).unwrap());
            assert_eq!(String::from_utf8(piped.stdout).unwrap(), answer, "{name} as standard input");
        }
    }
}

#[test]
fn printed_candidates_can_be_read_back() {
    for format in ["csv", "tsv", "jsonl"] {
        let output = facemill(&[ours("mysql.sql").to_str().unwrap(), "--format", format], b"");
        assert_eq!(read(&output.stdout).unwrap(), expected(), "{format}");
    }
}

#[test]
fn read_size_does_not_matter() {
    for name in GALLERY {
        let dump = gallery(name);
        for piece in [1, 2, 3, 7, 61, 1000] {
            assert_eq!(read_as(&dump, piece, &[]).unwrap(), expected(), "{name} in reads of {piece}");
        }
    }
}

#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn read_size_does_not_matter_to_reference_dumps() {
    let data = reference();
    for name in REFERENCE {
        let dump = fs::read(data.join(name)).unwrap();
        let whole = read(&dump).unwrap();
        for piece in [1, 4097] {
            assert_eq!(read_as(&dump, piece, &[]).unwrap(), whole, "{name} in reads of {piece}");
        }
    }
}

/// Every truncation must be an error, unless it removes only what follows the closing comment.
fn assert_truncations_are_errors(name: &str, dump: &[u8], step: usize) {
    let whole = read(dump).unwrap();
    let closing: [&[u8]; 2] = [b"-- PostgreSQL database dump complete", b"-- Dump completed"];
    let closed = |mark: &&[u8]| Some(memchr::memmem::rfind(dump, mark)? + mark.len());
    let closed = closing.iter().find_map(closed).unwrap_or(dump.len());
    for length in (0..dump.len()).step_by(step) {
        if let Ok(candidates) = read(&dump[..length]) {
            assert!(length >= closed, "{name} cut at {length} of {} was read as complete", dump.len());
            assert_eq!(candidates, whole, "{name} cut at {length}");
        }
    }
}

#[test]
fn truncated_dumps_are_errors() {
    for name in GALLERY {
        assert_truncations_are_errors(name, &gallery(name), 1);
    }
}

#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn truncated_reference_dumps_are_errors() {
    let data = reference();
    for name in REFERENCE {
        let dump = fs::read(data.join(name)).unwrap();
        assert_truncations_are_errors(name, &dump, dump.len() / 97);
    }
    let dump = fs::read(data.join("source.pg.dump")).unwrap();
    assert_truncations_are_errors("source.pg.dump", &dump, dump.len() / 7);
}

const NASTY: &[u8] = b"'\"\\;(),\n\t`-/*$0x\0\xff";

/// Changes and removes bytes: any result is fine, except a panic.
#[test]
fn damaged_dumps_cause_no_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for name in GALLERY.iter().chain(&["expected.csv"]) {
        let dump = gallery(name);
        for _ in 0..1500 {
            let mut dump = dump.clone();
            for _ in 0..=random(3) {
                let at = random(dump.len());
                match random(3) {
                    0 => dump[at] = NASTY[random(NASTY.len())],
                    1 => drop(dump.remove(at)),
                    _ => dump.truncate(at.max(1)),
                }
            }
            let _ = read(&dump);
        }
    }
}

fn packed(dump: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(dump).unwrap();
    let mut bz2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    bz2.write_all(dump).unwrap();
    vec![
        ("gz", gz.finish().unwrap()),
        ("bz2", bz2.finish().unwrap()),
        ("xz", liblzma::encode_all(dump, 6).unwrap()),
        ("zst", zstd::encode_all(dump, 3).unwrap()),
    ]
}

#[test]
fn compressed_dumps_whole_multi_member_and_truncated() {
    let dump = gallery("mysql.sql");
    let (front, back) = dump.split_at(dump.len() / 2);
    for ((name, whole), ((_, front), (_, back))) in
        packed(&dump).into_iter().zip(packed(front).into_iter().zip(packed(back)))
    {
        assert_eq!(read(&whole).unwrap(), expected(), "{name}");
        let joined = [front.clone(), back].concat();
        assert_eq!(read_as(&joined, 5, &[]).unwrap(), expected(), "{name} of several members");
        assert!(read(&front).is_err(), "{name} without its last member");
        for length in 0..whole.len() {
            let error = read(&whole[..length]).err().unwrap_or_else(|| panic!("{name} cut at {length}"));
            assert!(length < 16 || error.to_string().contains("byte"), "{name} cut at {length}: {error}");
        }
    }
}

#[test]
fn unused_tables_may_have_rows_of_any_size() {
    let mut dump = Vec::from(&b"CREATE TABLE junk (a text, b text);\nCOPY junk (a) FROM stdin;\n"[..]);
    dump.extend(std::iter::repeat_n(b'x', 70 << 20));
    dump.extend(b"\n\\.\nINSERT INTO junk VALUES ('");
    dump.extend(std::iter::repeat_n(b'y', 70 << 20));
    dump.extend(b"', '');\n");
    dump.extend(gallery("copy.pg.sql"));
    let packed = zstd::encode_all(&*dump, 1).unwrap();
    assert_eq!(read(&packed).unwrap(), expected());

    let mut bomb = Vec::from(&b"COPY public.labels (id, name) FROM stdin;\n1\t"[..]);
    bomb.extend(std::iter::repeat_n(b'x', 70 << 20));
    let error = read(&zstd::encode_all(&*bomb, 1).unwrap()).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("larger than 64 MiB"), "{error}");
}

fn sqlite_gallery(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE Faces (updated_at TEXT, id INTEGER PRIMARY KEY, photo_id INTEGER, label_id INTEGER, d BLOB);
             CREATE TABLE photos (id INTEGER PRIMARY KEY, posted_at TEXT, photo_url TEXT, source_url TEXT);
             CREATE TABLE labels (id INTEGER PRIMARY KEY, name TEXT);
             CREATE TABLE other (id INTEGER);
             INSERT INTO faces VALUES ('2019-01-01', 2, 10, NULL, x'00'), ('2016', 6, 14, 1, NULL),
                ('2016', 7, 14, 2, NULL),
                ('2016', 8, 15, 99, NULL), ('2016', 9, NULL, 1, NULL);
             INSERT INTO photos VALUES (14, NULL, 'u', NULL), (15, NULL, 'u', NULL);
             -- A virtual table, whose code is not in this program.
             PRAGMA writable_schema = ON;
             INSERT INTO sqlite_master VALUES
                ('table', 'places', 'places', 0, 'CREATE VIRTUAL TABLE places USING VirtualSpatialIndex(x)');
             PRAGMA writable_schema = OFF;",
        )
        .unwrap();
    let updated =
        ["2017-05-05", "2016-01-01 10:00:00.5", "2016-01-01 10:00:00", "2016-01-01 10:00:00", "2016-01-01 10:00"];
    for (candidate, updated) in expected().iter().zip(updated) {
        let id = |id: &facemill::domain::Id| id.as_str().parse::<i64>().unwrap();
        let (face, photo, label) = (id(&candidate.face_id), id(&candidate.photo_id), id(&candidate.label_id));
        connection.execute("INSERT INTO faces VALUES (?, ?, ?, ?, NULL)", (updated, face, photo, label)).unwrap();
        connection
            .execute(
                "INSERT INTO photos VALUES (?, ?, ?, ?)",
                (photo, &candidate.posted_at, &candidate.photo_url, &candidate.source_url),
            )
            .unwrap();
        connection.execute("INSERT INTO labels VALUES (?, ?)", (label, &candidate.label_name)).unwrap();
    }
}

#[test]
fn sqlite_files_by_path_piped_compressed_and_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd name?#%.txt");
    sqlite_gallery(&path);
    let from_file = |path: &Path| source::candidates(&Input::File(path.to_owned()), &Options::default(), &mut |_| {});
    assert_eq!(from_file(&path).unwrap(), expected());
    let bytes = fs::read(&path).unwrap();
    assert_eq!(read(&bytes).unwrap(), expected());
    for (name, packed) in packed(&bytes) {
        assert_eq!(read(&packed).unwrap(), expected(), "{name}");
    }
    for length in (0..bytes.len()).step_by(509) {
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
    }
    let mapping = Mapping::parse(&["photos.photo_url=url", "labels=people"]).unwrap();
    let error = source::candidates(&Input::File(path), &Options { mapping, ..Options::default() }, &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("`people` is missing") && error.contains("other (id)"), "{error}");
    assert!(error.contains("`url` is missing in table `photos` (id, posted_at, photo_url, source_url)"), "{error}");
}

#[test]
fn tables_of_the_same_name_in_several_schemas() {
    let found = read_as(&gallery("copy.pg.sql"), usize::MAX, &["faces=archive.faces"]).unwrap();
    let faces: Vec<_> = found.iter().map(|candidate| candidate.photo_id.as_str()).collect();
    assert_eq!(faces, ["12", "11"]);
    let error = read_as(&gallery("copy.pg.sql"), usize::MAX, &["photos=nowhere.photos"]).unwrap_err().to_string();
    assert!(error.contains("`nowhere.photos` is missing: name it with --map photos=TABLE"), "{error}");
    assert!(error.contains("archive.faces (id, photo_id, label_id, updated_at)"), "{error}");

    let mut two = String::from_utf8(gallery("mysql.sql")).unwrap();
    let again = two.replace("USE `gallery`", "USE `backup`");
    two.push_str(&again);
    let error = read(two.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("as gallery.faces and as backup.faces: choose one with --map faces="), "{error}");
    let map = ["faces=backup.faces", "photos=backup.photos", "labels=backup.labels"];
    assert_eq!(read_as(two.as_bytes(), usize::MAX, &map).unwrap(), expected());
}

#[test]
fn tables_and_columns_can_be_mapped() {
    for name in GALLERY {
        let renamed = String::from_utf8(gallery(name)).unwrap().replace("photo_url", "url").replace("photos", "images");
        let error = read(renamed.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("table `photos` is missing: name it with --map photos=TABLE"), "{name}: {error}");
        let error = read_as(renamed.as_bytes(), 100, &["photos=images"]).unwrap_err().to_string();
        assert!(error.contains("`photo_url` is missing in table `") && error.contains("images` ("), "{name}: {error}");
        assert_eq!(read_as(renamed.as_bytes(), 100, &["photos.photo_url=images.url"]).unwrap(), expected(), "{name}");
    }
    let without = read_as(&gallery("mysql.sql"), 100, &["photos.source_url=", "faces.updated_at="]).unwrap();
    assert_eq!(without.len(), 5);
    assert!(without.iter().all(|candidate| candidate.source_url.is_none()));
    assert!(without.is_sorted_by_key(|candidate| candidate.face_id.clone()));
}

/// A SELECT from the parent also finds the rows of its children.
#[test]
fn rows_of_partitions_and_children_count_for_the_parent() {
    let dump = "CREATE TABLE public.faces (id integer, photo_id integer, label_id integer, updated_at text)
        PARTITION BY RANGE (id);
        CREATE TABLE public.faces_a (id integer, photo_id integer, label_id integer, updated_at text);
        ALTER TABLE ONLY public.faces ATTACH PARTITION public.faces_a FOR VALUES FROM (1) TO (10);
        CREATE TABLE public.faces_b PARTITION OF public.faces FOR VALUES FROM (10) TO (20);
        CREATE TABLE public.labels (id integer, name text);
        CREATE TABLE public.more_labels (note text) INHERITS (public.labels);
        CREATE TABLE public.photos (id integer, source_url text, photo_url text, posted_at text);
        INSERT INTO public.faces_b VALUES (10, 1, 1, '2016-01-01');
COPY public.faces_a (id, updated_at, label_id, photo_id) FROM stdin;
1\t2016-01-02\t2\t2
\\.
        INSERT INTO public.labels VALUES (1, 'Ana');
        INSERT INTO public.more_labels (note, name, id) VALUES ('', 'Bea', 2);
        INSERT INTO public.photos VALUES (1, NULL, 'http://x/1', NULL), (2, NULL, 'http://x/2', NULL);";
    let found = read(dump.as_bytes()).unwrap();
    let names: Vec<_> = found.iter().map(|candidate| candidate.label_name.as_deref().unwrap()).collect();
    assert_eq!(names, ["Bea", "Ana"]);
}

#[test]
fn carriage_returns_and_byte_order_marks_are_accepted() {
    let dump = String::from_utf8(gallery("copy.pg.sql")).unwrap();
    let windows = format!("\u{feff}{}", dump.replace('\n', "\r\n"));
    assert_eq!(read(windows.as_bytes()).unwrap(), expected());
}

#[test]
fn sqlite3_scripts_are_read() {
    let mut script = String::from("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    for (table, columns) in [("faces", "id, photo_id, label_id, updated_at"), ("labels", "id, name")] {
        writeln!(script, "CREATE TABLE IF NOT EXISTS \"{table}\" ({columns});").unwrap();
    }
    script.push_str("CREATE TABLE photos(id,source_url,photo_url,posted_at, PRIMARY KEY(id));\n");
    script.push_str("INSERT INTO faces VALUES(1,2,3,1479996149);\nINSERT INTO labels VALUES(3,'O''Neill\\');\n");
    script.push_str("INSERT INTO photos VALUES(2,NULL,'http://x',NULL);\n");
    // Modules and statistics that other builds of SQLite have.
    script.push_str("ANALYZE sqlite_schema;\nINSERT INTO sqlite_stat1 VALUES('faces',NULL,'1');\n");
    script.push_str("INSERT INTO sqlite_stat4 VALUES('photos','sqlite_autoindex_photos_1','1','0','0',X'0302');\n");
    script.push_str("CREATE VIRTUAL TABLE found USING fts5(name);\nINSERT INTO found VALUES('x');\n");
    script.push_str("CREATE TRIGGER seen AFTER INSERT ON faces WHEN new.id > 0 BEGIN\n  ");
    script
        .push_str("UPDATE labels SET name = CASE WHEN new.id = 1 THEN 'a;' ELSE name END WHERE id = new.label_id;\n  ");
    script.push_str("INSERT INTO faces VALUES(7,2,3,NULL);\nEND;\nCOMMIT;\n");
    let found = read(script.as_bytes()).unwrap();
    assert_eq!(found.len(), 1, "the statements of a trigger are no rows");
    assert_eq!(found[0].label_name.as_deref(), Some("O'Neill\\"));
}

#[test]
fn broken_dumps_report_the_position_and_print_nothing() {
    let dump = String::from_utf8(gallery("copy.pg.sql")).unwrap();
    let broken = dump.replace("11\t\\N\t2\n", "11\t2\n");
    let offset = broken.find("2016-01-01 10:00:00.5").unwrap();
    let line = broken[..offset].lines().count() + 1;
    let position = format!("line {line}, byte {offset}: a row of faces has 4 values for 5 columns");
    for (dump, message) in [
        (broken, position.as_str()),
        (dump[..dump.len() - 50].to_owned(), "the comment that closes a complete dump is missing"),
        (dump.replace("宇佐美", "\\xe5\\xae"), "labels.name is not UTF-8"),
        ("hello".into(), "the dump begins with `hello`, which is no known format"),
        (String::new(), "the dump is empty"),
    ] {
        let output = facemill(&["-"], dump.as_bytes());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{error}");
        assert!(output.stdout.is_empty());
        assert!(error.contains(message), "{error}");
    }
    assert_eq!(facemill(&["no/such/dump.sql"], b"").status.code(), Some(3));
}

#[test]
fn a_closed_output_is_not_an_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .args(["candidates", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(&gallery("mysql.sql")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn missing_pg_restore_error_names_the_package() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    fs::write(&dump, b"PGDMP\x01\x0e\x00 and so on").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .arg("candidates")
        .arg(&dump)
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("`pg_restore`") && error.contains("postgresql-client"), "{error}");
    let output = facemill(&[dump.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("pg_restore: error"),
        "the message of pg_restore is passed on"
    );
}

#[test]
fn labels_need_no_table() {
    let nameless: Vec<Candidate> = expected().into_iter().map(|c| Candidate { label_name: None, ..c }).collect();
    for name in GALLERY {
        let mut found = read_as(&gallery(name), usize::MAX, &["labels="]).unwrap();
        assert!(found.iter().all(|candidate| candidate.label_name.is_none()), "{name}");
        // A label that no table has is one, too.
        found.retain(|candidate| nameless.iter().any(|known| known.photo_id == candidate.photo_id));
        assert_eq!(found, nameless, "{name}");
    }
    let script = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n\
        CREATE TABLE photos(id INTEGER PRIMARY KEY, photo_url TEXT, source_url TEXT, posted_at TEXT);\n\
        INSERT INTO photos VALUES(1,'https://a.test/1.jpg',NULL,NULL);\n\
        INSERT INTO photos VALUES(2,'https://a.test/2.jpg',NULL,NULL);\n\
        CREATE TABLE faces(id INTEGER PRIMARY KEY, photo_id INTEGER, label_id TEXT, updated_at TEXT);\n\
        INSERT INTO faces VALUES(10,1,'ann',NULL);\nINSERT INTO faces VALUES(11,1,NULL,NULL);\n\
        INSERT INTO faces VALUES(12,2,'ann',NULL);\nINSERT INTO faces VALUES(13,2,'bob',NULL);\nCOMMIT;\n";
    let found = read_as(script.as_bytes(), usize::MAX, &["labels="]).unwrap();
    let [only] = &found[..] else { panic!("photo 2 has two labelled faces: {found:?}") };
    assert_eq!((only.photo_id.as_str(), only.face_id.as_str(), only.label_id.as_str()), ("1", "10", "ann"));
    let error = read(script.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("table `labels` is missing") && error.contains("--map labels="), "{error}");
}
