CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- A face whose photo ends again gets a new key: keys are in the order in which the index learned of endings.
CREATE TABLE faces (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    photo_id TEXT NOT NULL UNIQUE,
    face_id TEXT NOT NULL,
    label_id TEXT NOT NULL,
    label_name TEXT,
    photo_url TEXT NOT NULL,
    source_url TEXT,
    posted_at TEXT,
    published INTEGER,
    host TEXT,
    original BLOB NOT NULL,
    original_format TEXT NOT NULL,
    original_bytes INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    search TEXT NOT NULL,
    score REAL NOT NULL,
    faces INTEGER NOT NULL,
    crop BLOB NOT NULL,
    format TEXT NOT NULL,
    align TEXT NOT NULL,
    angle REAL NOT NULL,
    centre_x REAL NOT NULL,
    centre_y REAL NOT NULL,
    side REAL NOT NULL,
    size INTEGER NOT NULL,
    mirrored REAL NOT NULL,
    mirrored_head REAL NOT NULL,
    blur REAL NOT NULL,
    exposure REAL NOT NULL,
    landmarks BLOB NOT NULL,
    source TEXT,
    -- Further columns of the source, as a JSON object of texts; NULL: none.
    columns TEXT,
    damage TEXT,
    -- Faces of earlier versions have NULL; so has the JPEG quality of an original that is no JPEG.
    contrast REAL,
    saturation REAL,
    face_blur REAL,
    jpeg_quality INTEGER,
    yaw REAL,
    pitch REAL,
    eyes_open REAL,
    mouth_open REAL,
    outlier REAL,
    pixels BLOB,
    -- What the host reserved about the use of the photo; NULL: nothing.
    opt_out TEXT,
    fill TEXT NOT NULL,
    -- Of the crop, 16 bytes; NULL: it is not measured.
    fingerprint BLOB,
    landmark_scheme TEXT NOT NULL
);

-- The predictions of the run's current classifier. A face that it has not scored has none.
CREATE TABLE predictions (
    face INTEGER PRIMARY KEY,
    p_ok REAL NOT NULL,
    model TEXT NOT NULL
);

CREATE INDEX face_originals ON faces(original);

CREATE TRIGGER face_removed AFTER DELETE ON faces BEGIN
    DELETE FROM predictions WHERE face = old.key;
END;

-- What people said about crops, also about crops that no face has now: the verdicts that no other replaces, and what
-- counts of them.
CREATE TABLE crop_verdicts (
    crop BLOB PRIMARY KEY,
    verdicts TEXT NOT NULL,
    judgement TEXT,
    reason TEXT,
    judged_by TEXT,
    judged_on TEXT,
    -- Whether one of the verdicts that count was given in bulk.
    in_bulk INTEGER NOT NULL
) WITHOUT ROWID;

-- All verdicts, numbered in the order of the log. `replaces`: ids with blanks between them.
CREATE TABLE verdicts (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    photo_id TEXT NOT NULL,
    crop BLOB NOT NULL,
    judgement TEXT NOT NULL,
    reason TEXT,
    person TEXT NOT NULL,
    at INTEGER NOT NULL,
    replaces TEXT NOT NULL,
    selection TEXT NOT NULL,
    view TEXT NOT NULL,
    repeat INTEGER NOT NULL,
    seen_p_ok REAL,
    seen_model BLOB
);

CREATE INDEX verdicts_by_crop ON verdicts(crop);
CREATE INDEX verdicts_by_photo ON verdicts(photo_id);

-- The judgements that are shown again, and the repeats themselves.
CREATE INDEX single_verdicts ON verdicts(person, number)
WHERE view = 'single' AND NOT repeat AND judgement IN ('ok', 'ng');
CREATE INDEX repeated_verdicts ON verdicts(person, crop, number) WHERE repeat;

-- The random sample that estimates the precision of a model.
CREATE INDEX random_verdicts ON verdicts(seen_model, seen_p_ok)
WHERE selection = 'random' AND view = 'single' AND NOT repeat AND judgement <> 'unjudged';

-- How many judgements each person made in each hour since 1970, kept as verdicts come. `in_bulk` counts those in bulk,
-- `verdicts` all others; undos and imports are in neither.
CREATE TABLE verdict_hours (
    hour INTEGER NOT NULL,
    person TEXT NOT NULL,
    verdicts INTEGER NOT NULL,
    in_bulk INTEGER NOT NULL,
    PRIMARY KEY (hour, person)
) WITHOUT ROWID;

-- The groups of duplicates, by crop. `place`: the best of a group has 0.
CREATE TABLE duplicates (
    crop BLOB PRIMARY KEY,
    of_group INTEGER NOT NULL,
    place INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX duplicates_by_group ON duplicates(of_group, place);

CREATE INDEX faces_by_crop ON faces(crop);

-- Which person a crop looks like, by number; crops that look like nobody else have no row.
CREATE TABLE identities (
    crop BLOB PRIMARY KEY,
    identity INTEGER NOT NULL
) WITHOUT ROWID;

-- Photos that have ended. `bytes` is the length of the id: ids order shorter first. A photo that is not `recorded` has no
-- record, or its record lacks what a stage found out.
CREATE TABLE endings (
    bytes INTEGER NOT NULL,
    photo_id TEXT NOT NULL,
    photo_url TEXT,
    ending TEXT NOT NULL,
    stage TEXT NOT NULL,
    cause TEXT NOT NULL,
    host TEXT NOT NULL,
    downloaded INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    recorded INTEGER NOT NULL,
    original BLOB,
    label TEXT,
    PRIMARY KEY (bytes, photo_id)
) WITHOUT ROWID;

CREATE INDEX unrecorded ON endings(bytes, photo_id) WHERE NOT recorded;

-- How many photos of each label have an original, kept as photos come and go. A label is its name, or its id if it has
-- no name: two sources have different ids for one person. The label of a photo without one is empty.
CREATE TABLE originals (
    original BLOB NOT NULL,
    label TEXT NOT NULL,
    photos INTEGER NOT NULL,
    PRIMARY KEY (original, label)
) WITHOUT ROWID;

CREATE TRIGGER original_added AFTER INSERT ON endings WHEN new.original IS NOT NULL BEGIN
    INSERT INTO originals VALUES (new.original, new.label, 1) ON CONFLICT DO UPDATE SET photos = photos + 1;
END;

CREATE TRIGGER original_removed AFTER DELETE ON endings WHEN old.original IS NOT NULL BEGIN
    UPDATE originals SET photos = photos - 1 WHERE original = old.original AND label = old.label;
    DELETE FROM originals WHERE original = old.original AND label = old.label AND photos = 0;
END;

-- How many photos ended alike: the numbers of a report, kept as photos come and go.
CREATE TABLE ending_counts (
    ending TEXT NOT NULL,
    stage TEXT NOT NULL,
    cause TEXT NOT NULL,
    host TEXT NOT NULL,
    downloaded INTEGER NOT NULL,
    photos INTEGER NOT NULL,
    PRIMARY KEY (ending, stage, cause, host, downloaded)
) WITHOUT ROWID;

CREATE TRIGGER ending_added AFTER INSERT ON endings BEGIN
    INSERT INTO ending_counts VALUES (new.ending, new.stage, new.cause, new.host, new.downloaded, 1)
    ON CONFLICT DO UPDATE SET photos = photos + 1;
END;

CREATE TRIGGER ending_removed AFTER DELETE ON endings BEGIN
    UPDATE ending_counts SET photos = photos - 1
    WHERE ending = old.ending AND stage = old.stage AND cause = old.cause AND host = old.host
      AND downloaded = old.downloaded;
    DELETE FROM ending_counts
    WHERE ending = old.ending AND stage = old.stage AND cause = old.cause AND host = old.host
      AND downloaded = old.downloaded AND photos = 0;
END;
