//! One small script for each kind of statement, value, key and ending: the database's answer, or an error that names
//! the reason.

use std::path::Path;

use facemill::domain::Candidate;
use facemill::source::{self, Input, Options, SourceError};

fn read_with(dump: &[u8], options: &Options) -> Result<Vec<Candidate>, SourceError> {
    source::candidates_from(std::io::Cursor::new(dump.to_vec()), options, &mut |_| {})
}

/// The photos and the names of their labels, or the error.
fn answer(dump: &[u8]) -> String {
    match read_with(dump, &Options::default()) {
        Ok(found) => shown(&found),
        Err(error) => format!("error: {error}"),
    }
}

fn shown(found: &[Candidate]) -> String {
    let row = |found: &Candidate| format!("{}={}", found.photo_id, found.label_name.as_deref().unwrap_or("NULL"));
    found.iter().map(row).collect::<Vec<_>>().join(" ")
}

const TABLES: &str = "CREATE TABLE labels (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE photos (id INTEGER PRIMARY KEY, source_url TEXT, photo_url TEXT, caption TEXT, posted_at TEXT);
CREATE TABLE faces (id INTEGER PRIMARY KEY, photo_id INTEGER, label_id INTEGER, updated_at TEXT);
CREATE TABLE other (id INTEGER, note TEXT);
INSERT INTO labels VALUES (1,'Ana');
INSERT INTO labels VALUES (2,'Bo');
INSERT INTO photos VALUES (1,NULL,'u1','c',NULL);
INSERT INTO photos VALUES (2,NULL,'u2','c',NULL);
INSERT INTO photos VALUES (3,NULL,'u3','c',NULL);
INSERT INTO faces VALUES (1,1,1,'2018-01-01');
INSERT INTO faces VALUES (3,3,1,'2018-01-03');
INSERT INTO faces VALUES (4,3,2,'2018-01-03');
";

const MYSQL: &str = "/*!40101 SET NAMES utf8mb4 */;\n";
const POSTGRES: &str = "SET standard_conforming_strings = on;\n";
const SQLITE: &str = "PRAGMA foreign_keys=OFF;\n";

/// Checks one case a line: a statement that follows the rows, and the answer or a part of the error.
fn check(database: &str, cases: &[(&str, &str)]) {
    for (statement, expected) in cases {
        let found = answer(format!("{database}{TABLES}{statement}\n").as_bytes());
        match expected.strip_prefix("error: ") {
            Some(reason) => assert!(found.starts_with("error: ") && found.contains(reason), "{statement}: {found}"),
            None => assert_eq!(found, *expected, "{statement}"),
        }
    }
}

/// The answer of the database to [`TABLES`] alone, and with a face on photo 2.
const ONE: &str = "1=Ana";
const TWO: &str = "2=Bo 1=Ana";

#[test]
fn values_that_the_query_does_not_read_have_the_form_of_their_type() {
    let table = "CREATE TABLE photos (id int, photo_url text, n numeric(4,1), b boolean, a text[], j jsonb, \
        source_url text, posted_at date);\n\
        CREATE TABLE labels (id int, name text);\n\
        CREATE TABLE faces (id int, photo_id int, label_id int, updated_at timestamp);\n\
        INSERT INTO labels VALUES (1,'Ana');\nINSERT INTO faces VALUES (1,1,1,NULL);\n";
    for (row, right) in [
        ("1\thttp://p/1\t-999.9\tt\t{a,\"b c\",NULL}\t{\"k\": [1]}", true),
        ("1\thttp://p/1\t\\N\t\\N\t\\N\t\\N", true),
        ("1\thttp://p/1\t99999\tt\t{a}\t1", false),
        ("1\thttp://p/1\t1\ttru e\t{a}\t1", false),
        ("1\thttp://p/1\t1\tt\t{a,}\t1", false),
        ("1\thttp://p/1\t1\tt\t{a}\t{k: 1}", false),
    ] {
        let columns = "id, photo_url, n, b, a, j";
        let copied = format!("{POSTGRES}{table}COPY photos ({columns}) FROM stdin;\n{row}\n\\.\n");
        let values: Vec<String> =
            row.split('\t').map(|value| if value == "\\N" { "NULL".into() } else { format!("'{value}'") }).collect();
        let inserted = format!("{POSTGRES}{table}INSERT INTO photos ({columns}) VALUES ({});\n", values.join(","));
        for script in [copied, inserted] {
            let found = answer(script.as_bytes());
            match right {
                true => assert_eq!(found, "1=Ana", "{script}"),
                false => assert!(found.contains("that the query does not read"), "{script}: {found}"),
            }
        }
    }
}

#[test]
fn every_form_of_insert_is_read() {
    check(
        MYSQL,
        &[
            ("INSERT faces VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT IGNORE faces VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT LOW_PRIORITY IGNORE INTO faces VALUE (2,2,2,'2018-01-02');", TWO),
            ("REPLACE faces VALUES (2,2,2,'2018-01-02');", TWO),
            ("REPLACE INTO `faces` (`id`,photo_id,`label_id`,updated_at) VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT INTO faces SET id=2, photo_id = 2, label_id=2, updated_at='2018-01-02';", TWO),
            ("INSERT INTO faces PARTITION (p0) (id, photo_id, label_id) VALUES (2,2,2);", TWO),
            ("INSERT INTO faces VALUES ROW(2,2,2,'2018-01-02');", TWO),
            (
                "INSERT INTO faces VALUES (2,2,2,'2018-01-02') AS new ON DUPLICATE KEY UPDATE label_id = new.label_id;",
                TWO,
            ),
            ("INSERT INTO faces (id, photo_id, label_id) VALUES (2,2,2);", TWO),
            ("INSERT INTO faces SELECT 2,2,2,NULL;", "error: only the database can work out"),
            ("INSERT INTO faces (SELECT 2,2,2,NULL);", "error: only the database can work out"),
            ("INSERT INTO faces TABLE other;", "error: only the database can work out"),
            ("INSERT INTO other SELECT 2,2;", ONE),
        ],
    );
    check(
        POSTGRES,
        &[
            ("INSERT INTO public.faces AS f VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT INTO \"faces\" (id, photo_id, label_id) OVERRIDING SYSTEM VALUE VALUES (2,2,2);", TWO),
            ("INSERT INTO faces OVERRIDING USER VALUE VALUES (2,2,2,NULL);", "error: number rows"),
            ("INSERT INTO faces VALUES (2,2,2,'2018-01-02') RETURNING id;", TWO),
            ("INSERT INTO faces DEFAULT VALUES;", "error: only the database knows"),
            ("WITH x AS (SELECT 3) INSERT INTO faces SELECT 2,2,2,NULL;", "error: only the database can work out"),
            ("INSERT INTO faces (id, photo_id) VALUES (2,2);", ONE),
            ("INSERT INTO faces (id, photo, label_id) VALUES (2,2,2);", "error: column"),
        ],
    );
    check(
        SQLITE,
        &[
            ("INSERT OR IGNORE INTO faces VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT OR REPLACE INTO [faces] ([id], photo_id, label_id) VALUES (2,2,2);", TWO),
            ("REPLACE INTO `faces` VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT OR FAIL INTO main.\"Faces\" VALUES (2,2,2,'2018-01-02');", TWO),
            ("INSERT INTO 'faces' VALUES (2,2,2,'2018-01-02');", TWO),
        ],
    );
}

#[test]
fn doubled_ids_follow_the_statement() {
    check(
        MYSQL,
        &[
            ("REPLACE INTO faces VALUES (1,2,2,NULL);", "2=Bo"),
            ("INSERT IGNORE INTO faces VALUES (1,2,2,NULL),(2,2,2,'2018-01-02');", TWO),
            ("INSERT IGNORE INTO labels VALUES (1,'Cy');", ONE),
            ("REPLACE INTO labels VALUES (1,'Cy');", "1=Cy"),
            ("INSERT INTO labels VALUES (1,'Cy') ON DUPLICATE KEY UPDATE name = VALUES(name);", "1=Cy"),
            ("INSERT INTO labels VALUES (1,'Cy') ON DUPLICATE KEY UPDATE name = 'Di';", "1=Di"),
            ("INSERT INTO labels VALUES (1,'Cy') AS n(a, b) ON DUPLICATE KEY UPDATE name = n.b;", "1=Cy"),
            (
                "INSERT INTO labels VALUES (1,'Cy') ON DUPLICATE KEY UPDATE name = concat(name, '!');",
                "error: only the database",
            ),
            ("INSERT INTO labels VALUES (7,'Cy') ON DUPLICATE KEY UPDATE name = concat(name, '!');", ONE),
            ("INSERT INTO labels VALUES (1,'Ana');", "error: a second row of labels has the id 1"),
            ("INSERT INTO faces VALUES (2,2,2,NULL),(1,1,1,NULL);", "error: the first is at byte"),
        ],
    );
    check(
        SQLITE,
        &[
            ("INSERT INTO labels VALUES (1,'Cy') ON CONFLICT DO NOTHING;", ONE),
            ("INSERT INTO labels VALUES (1,'Cy') ON CONFLICT(id) DO UPDATE SET name = excluded.name;", "1=Cy"),
            ("INSERT OR REPLACE INTO photos VALUES (1,NULL,'new','c',NULL);", ONE),
            ("INSERT INTO labels VALUES (1,'Cy');", "error: SQLite refuses the statement: UNIQUE constraint failed"),
        ],
    );
    check(
        POSTGRES,
        &[
            ("INSERT INTO labels VALUES (1,'Cy') ON CONFLICT DO NOTHING;", ONE),
            ("INSERT INTO labels VALUES (1,'Cy') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name;", "1=Cy"),
            (
                "INSERT INTO labels VALUES (1,'Cy') ON CONFLICT (id) DO UPDATE SET name = 'x' WHERE false;",
                "error: only the",
            ),
        ],
    );
    let late = TABLES.replace(" PRIMARY KEY", "");
    let doubled = "INSERT INTO labels VALUES (1,'Cy');\nALTER TABLE ONLY labels ADD CONSTRAINT l PRIMARY KEY (id);\n";
    let found = answer(format!("{POSTGRES}{late}{doubled}").as_bytes());
    assert!(found.contains("two rows of labels have the same id"), "{found}");
    let found = answer(format!("{POSTGRES}{late}INSERT INTO labels VALUES (1,'Cy');\n").as_bytes());
    assert_eq!(found, "1=Ana 1=Cy", "without a key both rows count");
}

#[test]
fn a_row_is_followed_by_a_separator_or_a_clause() {
    check(
        SQLITE,
        &[
            ("INSERT INTO faces VALUES (2,2,2,NULL)\n(5,2,2,NULL);", "error: SQLite refuses the statement: near"),
            ("INSERT INTO other VALUES (2,'a') x,(5,'b');", "error: SQLite refuses the statement: near"),
            ("INSERT INTO other VALUES (2);", "error: has 2 columns but 1 values"),
            ("INSERT INTO other VALUES (2,abc);", "error: no such column: abc"),
            ("INSERT INTO faces VALUES (2,2,2,CURRENT_TIMESTAMP);", "error: only the database can follow"),
            ("INSERT INTO other VALUES (2,CURRENT_TIMESTAMP);", ONE),
            ("INSERT INTO phots VALUES (9,NULL,'u','c',NULL);", "error: no such table: phots"),
        ],
    );
    for database in [MYSQL, POSTGRES] {
        check(
            database,
            &[
                ("INSERT INTO faces VALUES (2,2,2,NULL)\n(5,2,2,NULL);", "error: not by `,` or `;`"),
                ("INSERT INTO faces VALUES (2,2,2,NULL) x,(5,2,2,NULL);", "error: not by `,` or `;`"),
                ("INSERT INTO other VALUES (2,'a') x,(5,'b');", "error: not by `,` or `;`"),
                ("INSERT INTO other VALUES (2,'a')(5,'b');", "error: not by `,` or `;`"),
                ("INSERT INTO other VALUES (2);", "error: a row has 1 values for 2 columns"),
                ("INSERT INTO faces VALUES (2,2,2);", "error: a row of faces has 3 values for 4 columns"),
                ("INSERT INTO faces VALUEES (2,2,2,NULL);", "error: not by VALUES"),
                ("INSERT INTO faces VALUES (2,2,2,NUL);", "error: `NUL` is no value"),
                ("INSERT INTO other VALUES (2,abc);", "error: `abc` is no value"),
                ("INSERT INTO faces VALUES (2,2,2,DEFAULT);", "error: DEFAULT is a value that only the database knows"),
                ("INSERT INTO faces VALUES (2,2,2,CURRENT_TIMESTAMP);", "error: only the database knows"),
                ("INSERT INTO other VALUES (2,CURRENT_TIMESTAMP);", ONE),
                ("INSERT INTO phots VALUES (9,NULL,'u','c',NULL);", "error: no CREATE TABLE of the dump defines"),
                ("INSERTX INTO faces VALUES (2,2,2,NULL);", "error: starts no statement that is known"),
                ("\u{feff}INSERT INTO faces VALUES (2,2,2,NULL);", "error: starts no statement that is known"),
            ],
        );
    }
}

#[test]
fn statements_that_change_rows_are_followed_or_refused() {
    check(
        SQLITE,
        &[
            ("DELETE FROM faces;\nINSERT INTO faces VALUES (9,2,2,NULL);", "2=Bo"),
            ("DELETE FROM faces WHERE id = 4;", "3=Ana 1=Ana"),
            ("UPDATE labels SET name = 'Cy' WHERE id = 1;", "1=Cy"),
            ("INSERT INTO faces SELECT 2,2,2,'2018-01-02';", TWO),
            (
                "CREATE TRIGGER t AFTER INSERT ON faces BEGIN\n DELETE FROM faces WHERE id = 1;\nEND;\n\
                 INSERT INTO faces VALUES (2,2,2,'2018-01-02');",
                "2=Bo",
            ),
            ("CREATE TABLE faces (id int);", "error: table faces already exists"),
            ("ALTER TABLE faces RENAME TO olds;", "error: `faces` is missing"),
            ("BEGIN;\nINSERT INTO faces VALUES (2,2,2,NULL);", "error: truncated"),
            ("BEGIN;\nINSERT INTO faces VALUES (2,2,2,NULL);\nROLLBACK;", "error: ROLLBACK takes rows back"),
            (".read more.sql", "error: from another file"),
            ("ATTACH 'x' AS y;", "error: only the database can follow"),
        ],
    );
    for database in [MYSQL, POSTGRES] {
        check(
            database,
            &[
                ("DELETE FROM faces;\nINSERT INTO faces VALUES (9,2,2,NULL);", "2=Bo"),
                ("DELETE FROM faces WHERE id = 4;", "error: DELETE ... WHERE changes rows of `faces`"),
                ("UPDATE labels SET name = 'Cy' WHERE id = 1;", "error: UPDATE changes rows of `labels`"),
                ("UPDATE other SET note = 'x';", ONE),
                ("DELETE FROM other WHERE id = 4;", ONE),
                (
                    "DROP TABLE faces;\nCREATE TABLE faces (id int, photo_id int, label_id int, updated_at text);\n\
                  INSERT INTO faces VALUES (9,2,2,NULL);",
                    "2=Bo",
                ),
                ("CREATE TABLE faces (id int);", "error: `faces` exists already"),
                ("ALTER TABLE faces RENAME TO olds;", "error: RENAME"),
                ("CREATE TABLE labels2 AS SELECT 1;", ONE),
            ],
        );
    }
    check(
        MYSQL,
        &[
            ("TRUNCATE TABLE faces;\nINSERT INTO faces VALUES (9,1,1,NULL);", ONE),
            ("RENAME TABLE faces TO old, other TO faces;", "error: RENAME TABLE"),
            ("LOAD DATA INFILE 'x' INTO TABLE faces;", "error: in another file"),
            ("LOAD DATA INFILE 'x' INTO TABLE other;", ONE),
            ("source more.sql ;", "error: from another file"),
            ("CALL fill();", "error: runs code"),
            ("USE gallery", ONE),
            ("DELIMITER $$\nCREATE PROCEDURE p() BEGIN INSERT INTO faces VALUES (2,2,2,NULL); END$$\nDELIMITER ;", ONE),
            ("DELIMITER ;;\nINSERT INTO faces VALUES (2,2,2,'2018-01-02');;\nDELIMITER ;", TWO),
            ("DELIMITER ;;\nSET @a = 1; INSERT INTO faces VALUES (2,2,2,'2018-01-02'); SET @b = 2;;\nDELIMITER ;", TWO),
            ("DELIMITER ;;\nCREATE VIEW v AS SELECT 1;;", "error: truncated"),
            (
                "CREATE TRIGGER t AFTER INSERT ON faces FOR EACH ROW SET @a = 1;\nINSERT INTO faces VALUES (2,2,2,NULL);",
                "error: has a trigger",
            ),
        ],
    );
    check(
        POSTGRES,
        &[
            ("TRUNCATE ONLY faces, labels CASCADE;", "error: CASCADE"),
            ("COPY labels FROM '/data/labels.dat';", "error: in another file"),
            ("COPY faces FROM PROGRAM 'cat f';", "error: in another file"),
            ("\\copy labels from 'labels.csv' csv header", "error: from another file"),
            ("\\i more.sql", "error: from another file"),
            ("DO $$BEGIN DELETE FROM faces; END$$;", "error: runs code"),
            ("SELECT pg_catalog.setval('public.faces_id_seq', 4, true);", "error: `faces_id_seq` does not exist"),
            ("CREATE SEQUENCE faces_id_seq;\nSELECT pg_catalog.setval('public.faces_id_seq', 4, true);", ONE),
            ("SELECT fill_faces();", "error: the function `fill_faces`"),
            (
                "COPY faces (id,photo_id,label_id,updated_at) FROM stdin WITH (FORMAT text, NULL 'x');\n2\t2\t2\t2018-01-02\n\\.",
                TWO,
            ),
            (
                "COPY labels FROM stdin;\n3\t\\\\N\n4\t\\N\n\\.\nCOPY faces FROM stdin;\n2\t2\t3\t\\N\n\\.",
                "2=\\N 1=Ana",
            ),
            ("COPY faces FROM stdin DELIMITER '|' NULL AS '';\n2|2|2|2018-01-02\n5|1||\n\\.", TWO),
            ("COPY faces FROM stdin WITH (FORMAT csv);\n2,2,2,\n\\.", "error: only the text format"),
            ("COPY other FROM stdin;\n1\ta\n2\n\\.", "error: does not have 2 values"),
            (
                "COPY other FROM stdin;\n1\ta\n\\x\nCOPY faces FROM stdin;\n2\t2\t2\t\\N\n\\.",
                "error: does not have 2 values",
            ),
            ("COPY faces FROM stdin;\n1\t2\t2\t\\N\n\\.", "error: a second row of faces has the id 1"),
        ],
    );
}

#[test]
fn a_lost_separator_hides_no_statement() {
    check(
        MYSQL,
        &[
            (
                "/*!40000 ALTER TABLE `faces` DISABLE KEYS */\nINSERT INTO faces VALUES (2,2,2,NULL);",
                "error: the `;` before it is missing",
            ),
            ("UNLOCK TABLES\nINSERT INTO faces VALUES (2,2,2,NULL);", "error: the `;` before it is missing"),
            ("SET a = 1 INSERT INTO faces VALUES (2,2,2,NULL);", "error: the `;` before it is missing"),
        ],
    );
    check(
        POSTGRES,
        &[
            (
                "ALTER TABLE public.faces OWNER TO x\n\nINSERT INTO faces VALUES (2,2,2,NULL);",
                "error: the `;` before it is missing",
            ),
            (
                "GRANT SELECT ON faces TO x\nCOPY faces FROM stdin;\n2\t2\t2\t\\N\n\\.",
                "error: the `;` before it is missing",
            ),
        ],
    );
}

/// What a server refuses is refused, also where the statement has no rows of the query's tables.
#[test]
fn damaged_statements_are_refused() {
    check(
        MYSQL,
        &[
            ("SET SQL_NOTES=0 0;", "error: SET has a form that is not known"),
            ("SET character_set_client == utf8mb4;", "error: SET has a form that is not known"),
            ("SET SQL_NOTES=@OLD_SQL_NOTES;", "error: @OLD_SQL_NOTES has no value"),
            ("SET SQL_MODE='NO_AUTO_VALUE_ON_ZEROO';", "error: the sql_mode"),
            ("SET SQL_MDOE='';", "error: the variable `sql_mdoe` is not known"),
            ("SET character_set_results = @saved_cs_results;", ONE),
            ("SET @a = @@SQL_MODE, SQL_MODE = 'NO_AUTO_VALUE_ON_ZERO';\nSET SQL_MODE = @a;", ONE),
            ("LOCK TABLES `other`;", "error: LOCK has a form"),
            ("LOCK TABLES `others` WRITE;\nUNLOCK TABLES;", "error: `others` does not exist"),
            (
                "LOCK TABLES `other` WRITE;\nINSERT INTO faces VALUES (2,2,2,NULL);",
                "error: is not among the tables of LOCK",
            ),
            ("LOCK TABLES other WRITE, faces READ;\nUNLOCK TBLAES;", "error: UNLOCK has a form"),
            ("ALTER TABLE faces DISABLLE KEYS;", "error: the change of `faces` has a form"),
            ("CREATE TABLE t (`id` int(11) DFAEULT NULL);", "error: the column `id` of `t` has a form"),
            ("CREATE TABLE t (a int, a int);", "error: column `a` of `t` is defined twice"),
            ("CREATE TABLE t (a int, PRIMARY KEY (a), PRIMARY KEY (a));", "error: a second primary key"),
            ("CREATE TABLE t (a int, UNIQUE KEY k (b));", "error: names the column `b`, which does not exist"),
            ("CREATE TABLE t (a text COLLATE utf8mb4_general_cci);", "error: the collation `utf8mb4_general_cci`"),
            ("CREATE TABLE t (a int) ENGINE=InnoDB DEFAULTCHARSET=utf8;", "error: what follows the columns"),
            ("(1,'a'),\n(2,'b');", "error: a query has a form"),
            ("INSERT INTO other VALUES (1..5,'x');", "error: belongs to no expression"),
            ("INSERT INTO other VALUES (1,'a'b);", "error: belongs to no expression"),
            ("INSERT INTO other VALUES (1, NOW() + INTERVAL 1 DAY), (1 + 2, concat('a', 'b'));", ONE),
            (
                "REPLACE INTO other VALUES (1,'a'),\nREPLACE INTO other VALUES (1,'a');",
                "error: does not start with `(`",
            ),
            ("CREATE VIEW v AS SELECT id FROM other;\nCREATE VIEW v AS SELECT 1;", "error: `v` exists already"),
            ("CREATE SEQUENCE s start with 5 minvlue 1;", "error: CREATE has a form"),
            ("DO SETVAL(`s`, 5, 0);", "error: `s` does not exist"),
            ("/*!4010 SET NAMES utf8 */;", "error: starts no statement"),
            ("/*!401014 SET NAMES nonsense */;", ONE),
            ("---- a line of hyphens\nINSERT INTO faces VALUES (2,2,2,'2018-01-02');", TWO),
        ],
    );
    check(
        POSTGRES,
        &[
            ("SET statement_timeout = ;", "error: the value of SET statement_timeout"),
            ("SET row_security == off;", "error: the value of SET row_security"),
            ("SET staement_timeout = 0;", "error: the setting `staement_timeout` is not known"),
            ("SELECT pg_catalog.set_config('search_path', '' false);", "error: has a form that is not known"),
            ("SELECT pg_cataalog.set_config('search_path', '', false);", "error: the function `set_config`"),
            ("SELECT pg_catalog.setval('public.s', 1, false);", "error: `s` does not exist"),
            ("COMMENT ON TABLE faces 'x';", "error: COMMENT has a form"),
            ("ALTER TABLE ONLY facs OWNER TO x;", "error: `facs` does not exist"),
            ("ALTER TABLE ONLY faces OWER TO x;", "error: the change of `faces`"),
            ("ALTER TABLE ONLY faces ADD CONSTRAINT f PRIMARY KEY (id);", "error: a second primary key"),
            ("ALTER TABLE ONLY faces DROP IF EXISTS faces_pkey;", ONE),
            ("ALTER TABLE ONLY faces DROP COLUMN IF EXISTS label_id;", "error: changed by DROP"),
            (
                "ALTER TABLE other ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (START WITH 1);\nSELECT \
                 pg_catalog.setval('other_id_seq', 1, false);",
                ONE,
            ),
            ("ALTER TABLE ONLY other ADD CONSTRAINT f UNIQUE (ids);", "error: names the column `ids`"),
            ("CREATE TABLE t (id bgint);", "error: the type `bgint` is not known"),
            ("CREATE TABLE t (id numeric(,2));", "error: the column `id` of `t`"),
            ("CREATE TYPE mood AS ENUM ('a');\nCREATE TABLE t (m mood);", ONE),
            ("CREATE SCHEMA s;\nCREATE SCHEMA s;", "error: the schema `s` exists already"),
            ("CREATE SCHEMA s;\nCREATE TABLE r.t (a int);", "error: the schema `r` does not exist"),
            (
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';\nCREATE FUNCTION f() RETURNS int LANGUAGE sql \
              AS 'SELECT 1';",
                "error: the function `f` exists already",
            ),
            ("INSERT INTO other VALUES (1,'a') ON CONFLICT DO NOHITNG;", "error: what follows a row"),
            ("INSERT INTO other (id, note) (1,'a');", "error: not by VALUES"),
            ("\\restrict abc\n\\unrestrict abd", "error: another key"),
            ("\\restrict abc\n\\echo x", "error: psql refuses"),
            ("\\restrict abc\n\\unrestrict abc", ONE),
            ("\\restrict abc", "error: has no `\\unrestrict`"),
            ("CREATE VIEW v AS SELECT SELECT 1;", "error: CREATE has a form"),
            ("REFRESH MATERIALIZED VIEW v;", "error: `v` does not exist"),
            ("CREATE MATERIALIZED VIEW v AS SELECT id FROM other WITH NODA TA;", "error: CREATE has a form"),
            ("CREATE RULE r ASS ON UPDATE TO other DO INSTEAD NOTHING;", "error: CREATE TRIGGER has a form"),
            ("CREATE RULE r AS ON UPDATE TO other DO INSTEAD NOTHING;", ONE),
            ("CREATE TABLE t (a numeric(2020,3));", "error: the column `a` of `t`"),
            ("CREATE TABLE t (a timestamp with time);", "error: the column `a` of `t`"),
            ("CREATE TABLE t (a text DEFAULT 'x'::teixt);", "error: the type `teixt` is not known"),
            ("CREATE TABLE t (a text COLLATE public.cae);", "error: the collation `cae` does not exist"),
            ("CREATE COLLATION public.c FROM \"C\";\nCREATE TABLE t (a text COLLATE public.c);", ONE),
            ("ALTER FUNCTION public.f() OWNER TO x;", "error: the function `f` does not exist"),
            ("CREATE FUNCTION f() RETURNS trgger LANGUAGE sql AS 'x';", "error: the type `trgger` is not known"),
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sqll AS 'x';", "error: the language `sqll` is not known"),
            ("SELECT pg_catalog.set_config('search_ppath', '', false);", "error: the setting `search_ppath`"),
            ("COMMENT ON TABLE facs IS 'x';", "error: `facs` does not exist"),
            ("CREATE TABLE t (id int);\nALTER TABLE faces ATTACH PARTITION t DEFAULT;", "error: `t` lacks the column"),
            (
                "CREATE TABLE t (a int REFERENCES faces);\nALTER TABLE t ADD FOREIGN KEY (a) REFERENCES photos (photo_url);",
                "error: refers to columns of `photos` that have no key",
            ),
            ("ALTER INDEX i ATTACH PARTITION j;", "error: `i` does not exist"),
        ],
    );
    let early = format!("{POSTGRES}COMMENT ON TABLE faces IS 'x';\nALTER TABLE faces OWNER TO x;\n{TABLES}");
    assert!(answer(early.as_bytes()).contains("`faces` is named before it is created"));
}

#[test]
fn literals_of_every_kind_are_read() {
    let row =
        |name: &str| format!("INSERT INTO labels VALUES (9,{name});\nINSERT INTO faces VALUES (2,2,9,'2018-01-02');");
    for (database, name, expected) in [
        (POSTGRES, "'B'\n'o'", "Bo"),
        (POSTGRES, "U&'B\\006f'", "Bo"),
        (POSTGRES, "$$it's (1$$", "it's (1"),
        (POSTGRES, "$a$B$$o$a$", "B$$o"),
        (POSTGRES, "E'B\\x6f'", "Bo"),
        (POSTGRES, "'Bo'::character varying(9)", "Bo"),
        (POSTGRES, "CAST('Bo' AS text)", "Bo"),
        (POSTGRES, "/* it's */ 'Bo' -- '\n", "Bo"),
        (POSTGRES, "text 'Bo'", "Bo"),
        (POSTGRES, "d 'Bo'", "error: "),
        (POSTGRES, "now()", "error: cannot be evaluated without the database"),
        (MYSQL, "_utf8mb4'Bo'", "Bo"),
        (MYSQL, "_latin1 'B\u{c3}'", "B\u{c3}\u{192}"),
        (MYSQL, "_binary 0x426f", "Bo"),
        (MYSQL, "x'426F'", "Bo"),
        (MYSQL, "'B' 'o'", "Bo"),
        (MYSQL, "\"B\\\"o\"", "B\"o"),
        (MYSQL, "CONVERT('Bo' USING utf8mb4)", "Bo"),
        (MYSQL, "{ts '2017-06-19 12:29:25'}", "2017-06-19 12:29:25"),
        (SQLITE, "replace('B\\no','\\n',char(10))", "B\no"),
        (SQLITE, "unistr('B\\u000ao')", "B\no"),
        (SQLITE, "CAST(x'426f' AS TEXT)", "Bo"),
    ] {
        let found = answer(format!("{database}{TABLES}{}\n", row(name)).as_bytes());
        match expected.strip_prefix("error: ") {
            Some(reason) => assert!(found.contains(reason), "{name}: {found}"),
            // The script is UTF-8: two bytes of latin1 are two letters.
            None if name.starts_with("_latin1") => assert!(found.contains('\u{c3}'), "{name}: {found}"),
            None => assert_eq!(found, format!("2={expected} 1=Ana"), "{name}"),
        }
    }
}

#[test]
fn strings_follow_the_settings_of_the_script() {
    let script = |settings: &[u8], name: &[u8]| {
        [
            settings,
            TABLES.as_bytes(),
            b"INSERT INTO labels VALUES (9,",
            name,
            b");\nINSERT INTO faces VALUES (2,2,9,'2018-01-02');\n",
        ]
        .concat()
    };
    for (settings, name, expected) in [
        (&b"SET NAMES cp932;\n"[..], &b"'\x95\x5c'"[..], "\u{8868}"),
        (b"SET NAMES 'gbk' COLLATE gbk_bin;\n", b"'\x95\x5c'", "\u{661e}"),
        (b"/*!40101 SET NAMES big5 */;\n", b"'\xa4\x5c'", "\u{4e48}"),
        (b"SET NAMES latin1;\n", b"'\xe9'", "\u{e9}"),
        (b"SET NAMES utf8;\nSET character_set_client = latin1;\n", b"'\xe9'", "\u{e9}"),
        (
            b"SET NAMES latin1;\nSET @saved_cs = @@character_set_client;\nSET character_set_client = utf8;\n\
           SET character_set_client = @saved_cs;\n",
            b"'\xe9'",
            "\u{e9}",
        ),
        (b"SET NAMES cp850;\n", b"'\x82'", "error: cp850"),
        (b"SET NAMES klingon;\n", b"'x'", "error: the character set `klingon` is not known"),
        (b"/*!40101 SET @a=1 */;\nSET SQL_MODE='NO_BACKSLASH_ESCAPES';\n", b"'a\\'", "a\\"),
        (b"/*!40101 SET SQL_MODE='ANSI_QUOTES' */;\n", b"\"Bo\"", "error: cannot be evaluated"),
        (b"SET standard_conforming_strings = off;\n", b"'a\\'b'", "a'b"),
        (b"SET standard_conforming_strings = on;\nSET client_encoding = 'SJIS';\n", b"'\x95\x5c'", "\u{8868}"),
        (b"SET standard_conforming_strings = on;\nSET client_encoding = 'SJIS';\n", b"E'\\\x83\x5c'", "\u{30bd}"),
        (b"SET standard_conforming_strings = on;\nSET client_encoding = 'LATIN1';\n", b"'\xe9'", "\u{e9}"),
        (b"SET standard_conforming_strings = on;\n", b"'\xe9'", "error: not UTF-8"),
    ] {
        let found = answer(&script(settings, name));
        let settings = String::from_utf8_lossy(settings);
        match expected.strip_prefix("error: ") {
            Some(reason) => assert!(found.starts_with("error: ") && found.contains(reason), "{settings}: {found}"),
            None => assert_eq!(found, format!("2={expected} 1=Ana"), "{settings}"),
        }
    }
    let dump = format!("{MYSQL}{TABLES}INSERT INTO faces VALUES (2,2,2,'2018-01-02');\n");
    let utf16: Vec<u8> = dump.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let options = Options::default();
    assert_eq!(shown(&read_with(&[b"\xff\xfe", &utf16[..]].concat(), &options).unwrap()), TWO);
    assert!(options.warnings.lines()[0].contains("UTF-16LE"), "{:?}", options.warnings.lines());
}

#[test]
fn cut_scripts_without_a_footer_are_truncated() {
    let face = "INSERT INTO faces VALUES (2,2,2,'2018-01-02');\n";
    for (before, after, expected) in [
        ("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", "", "error: truncated"),
        ("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", "COMMIT;\n", TWO),
        (
            "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n",
            "ROLLBACK; -- due to errors\n",
            "error: ROLLBACK takes rows back",
        ),
        ("SET NAMES utf8;\nSTART TRANSACTION;\n", "", "error: truncated"),
        ("SET NAMES utf8;\nSET AUTOCOMMIT = 0;\n", "", "error: autocommit is off"),
        ("SET NAMES utf8;\nSET AUTOCOMMIT = 0;\n", "COMMIT;\n", TWO),
        ("SET NAMES utf8;\n", "LOCK TABLES `faces` WRITE;\n", "error: LOCK TABLES has no UNLOCK TABLES"),
        ("SET NAMES utf8;\n", "LOCK TABLES `faces` WRITE;\nUNLOCK TABLES;\n", TWO),
        ("SET @OLD_A=@@TIME_ZONE;\nSET NAMES utf8;\n", "", TWO),
        (
            "SET @OLD_A=@@TIME_ZONE;\nSET @OLD_B=@@SQL_MODE, SQL_MODE='';\nSET NAMES utf8;\n",
            "",
            "error: never restored",
        ),
        (
            "SET @OLD_A=@@TIME_ZONE;\nSET @OLD_B=@@SQL_MODE, SQL_MODE='';\nSET NAMES utf8;\n",
            "SET TIME_ZONE=@OLD_A;\nSET SQL_MODE=IFNULL(@OLD_B, '');\n",
            TWO,
        ),
        ("/*!40101 SET NAMES utf8 */;\n", "/*!40000 ", "error: truncated"),
        ("-- MySQL dump 9.11\nSET NAMES utf8;\n", "", TWO),
        ("-- MySQL dump 10.13\nSET NAMES utf8;\n", "", "error: truncated"),
    ] {
        let found = answer(format!("{before}{TABLES}{face}{after}").as_bytes());
        match expected.strip_prefix("error: ") {
            Some(reason) => {
                assert!(found.starts_with("error: ") && found.contains(reason), "{before} {after}: {found}")
            }
            None => assert_eq!(found, expected, "{before} {after}"),
        }
    }
    let options = Options::default();
    read_with(format!("-- MySQL dump 9.11\nSET NAMES utf8;\n{TABLES}").as_bytes(), &options).unwrap();
    assert!(options.warnings.lines()[0].contains("cannot be known"));
}

#[test]
fn ids_join_by_the_types_of_their_columns() {
    let script = |database: &str, types: [&str; 4], values: [&str; 4]| {
        let [face_photo, photo, face_label, label] = types;
        let [a, b, c, d] = values;
        format!(
            "{database}CREATE TABLE faces (id int, photo_id {face_photo}, label_id {face_label}, updated_at text);\n\
             CREATE TABLE photos (id {photo}, source_url text, photo_url text, posted_at text);\n\
             CREATE TABLE labels (id {label}, name text);\n\
             INSERT INTO faces VALUES (1,{a},{c},NULL);\nINSERT INTO photos VALUES ({b},NULL,'u',NULL);\n\
             INSERT INTO labels VALUES ({d},'Ana');\n"
        )
    };
    let int = "integer";
    let text = "varchar(20)";
    for (database, types, values, expected) in [
        (POSTGRES, ["numeric(6,1)", int, "numeric(10,2)", "bigint"], ["1.0", "1", "7.00", "7"], "1=Ana"),
        (POSTGRES, ["char(4)", "char(4)", int, int], ["'a   '", "'a'", "1", "1"], "a=Ana"),
        (POSTGRES, [text, text, int, int], ["'a '", "'a'", "1", "1"], "error: join nothing"),
        (
            POSTGRES,
            ["uuid", "uuid", int, int],
            ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "1", "1"],
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11=Ana",
        ),
        (SQLITE, ["REAL", "INTEGER", "REAL", "INTEGER"], ["1.0", "1", "2.0", "2"], "1=Ana"),
        (SQLITE, ["TEXT", "INTEGER", int, int], ["'1'", "1", "1", "1"], "1=Ana"),
        (SQLITE, ["TEXT", "TEXT COLLATE NOCASE", int, int], ["'A'", "'a'", "1", "1"], "a=Ana"),
        (MYSQL, ["int", "int(8) unsigned zerofill", int, int], ["7", "00000007", "1", "1"], "00000007=Ana"),
        (MYSQL, ["decimal(10,2)", "int", "varchar(9)", "int"], ["1.00", "1", "'2x'", "2"], "1=Ana"),
        (MYSQL, ["binary(2)", "binary(2)", int, int], ["0x4100", "_binary 'A\\0'", "1", "1"], "4100=Ana"),
        (
            MYSQL,
            ["varchar(9) COLLATE utf8_general_ci", "varchar(9) COLLATE utf8_general_ci", int, int],
            ["'Ana '", "'ana'", "1", "1"],
            "ana=Ana",
        ),
        (
            MYSQL,
            ["varchar(9) COLLATE utf8_bin", "varchar(9) COLLATE utf8_bin", int, int],
            ["'Ana'", "'ana'", "1", "1"],
            "error: labelled faces join nothing",
        ),
        (
            MYSQL,
            ["varchar(9) COLLATE utf8_general_ci", "varchar(9) COLLATE utf8_general_ci", int, int],
            ["'\u{e9}'", "'e'", "1", "1"],
            "error: collation",
        ),
        (MYSQL, [text, text, int, int], ["'Ana'", "'ana'", "1", "1"], "error: collation"),
    ] {
        let found = answer(script(database, types, values).as_bytes());
        match expected.strip_prefix("error: ") {
            Some(reason) => assert!(found.starts_with("error: ") && found.contains(reason), "{types:?}: {found}"),
            None => assert_eq!(found, expected, "{types:?} {values:?}"),
        }
    }
}

#[test]
fn rows_of_several_parents_and_of_hidden_columns_count() {
    let dump = "SET standard_conforming_strings = on;
        CREATE TABLE public.audited (who text);
        CREATE TABLE public.faces (id int, photo_id int, label_id int, updated_at text);
        CREATE TABLE public.old (\n)\nINHERITS (public.audited, public.faces);
        CREATE TABLE public.photos (id int, source_url text, photo_url text, posted_at text);
        CREATE TABLE public.labels (id int, name text);
        INSERT INTO public.old (who, id, photo_id, label_id) VALUES ('x', 1, 1, 1);
        INSERT INTO public.old VALUES ('x', 2, 2, 1, NULL);
        INSERT INTO public.photos VALUES (1, NULL, 'u', NULL), (2, NULL, 'u', NULL);
        INSERT INTO public.labels VALUES (1, 'Ana');\n";
    assert_eq!(answer(dump.as_bytes()), "1=Ana 2=Ana");
    let hidden = TABLES.replace("name TEXT", "name TEXT, e TEXT GENERATED ALWAYS AS (name || 'x') VIRTUAL");
    assert_eq!(answer(format!("{SQLITE}{hidden}").as_bytes()), ONE);
    let invisible = TABLES.replace("name TEXT", "note TEXT INVISIBLE, name TEXT");
    assert_eq!(answer(format!("{MYSQL}{invisible}").as_bytes()), ONE);
}

#[test]
fn lenient_reading_warns_and_counts() {
    let dump = format!("{MYSQL}{TABLES}CALL fill();\nINSERT INTO phots VALUES (1);\n");
    assert!(read_with(dump.as_bytes(), &Options::default()).unwrap_err().to_string().contains("--lenient"));
    let options = Options { lenient: true, ..Options::default() };
    assert_eq!(shown(&read_with(dump.as_bytes(), &options).unwrap()), ONE);
    let lines = options.warnings.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].starts_with("2 refusals became warnings"), "{lines:?}");
}

/// A small file must not take the memory or the time of a large one.
#[test]
fn small_hostile_files_are_refused_soon() {
    let columns = format!("{MYSQL}CREATE TABLE faces (id int{});\n", ", a int".repeat(70_000_000 / 7));
    let values = format!("{MYSQL}{TABLES}INSERT INTO other VALUES (1{});\n", ",1".repeat(35_000_000));
    for (dump, reason) in [(columns, "more than 4096 columns"), (values, "more than 4096 values")] {
        let packed = zstd::encode_all(dump.as_bytes(), 1).unwrap();
        let found = answer(&packed);
        assert!(found.starts_with("error: ") && found.contains(reason), "{found}");
    }
    let mut labels =
        format!("{POSTGRES}CREATE TABLE labels (id int, name text);\nCOPY labels FROM stdin;\n").into_bytes();
    labels.extend(b"1\tabc\n".repeat(20_000_000));
    let found = answer(&zstd::encode_all(&labels[..], 1).unwrap());
    assert!(found.contains("expand to rows that need more than"), "{found}");
}

#[test]
fn tables_of_other_programs_are_read() {
    let header = "face_id,photo_id,source_url,photo_url,posted_at,label_id,label_name";
    let csv = format!("{header}\n1,1,\\N,u1,,1,Ana\n2,2,NULL,u2,\"\\N\",2,NULL\n");
    let found = read_with(csv.as_bytes(), &Options::default()).unwrap();
    assert_eq!(shown(&found), "1=Ana 2=NULL");
    assert_eq!((found[0].source_url.as_deref(), found[1].source_url.as_deref()), (None, Some("NULL")));
    assert_eq!(found[1].posted_at.as_deref(), Some("\\N"), "in quotes it is text");
    assert_eq!(answer(csv.replace('\n', "\r").as_bytes()), "1=Ana 2=NULL");

    let semicolons = csv.replace(',', ";");
    assert!(answer(semicolons.as_bytes()).contains("--delimiter ';'"));
    let options = Options { delimiter: Some(b';'), ..Options::default() };
    assert_eq!(shown(&read_with(semicolons.as_bytes(), &options).unwrap()), "1=Ana 2=NULL");

    let inches = format!("{header}\n1,1,,u1,,1,Ana 5\" tall\n2,2,,u2,,2,Bo\n3,3,,u3,,1,Ana 6\" tall\n");
    let options = Options::default();
    assert_eq!(read_with(inches.as_bytes(), &options).unwrap().len(), 1, "as PostgreSQL reads it");
    assert!(options.warnings.lines()[0].starts_with("line 2: a quote within an unquoted field"));

    let backslashes = format!("{header}\n1,1,,u1,,1,\"An \\\"A\\\" a\"\n");
    assert!(answer(backslashes.as_bytes()).contains("line 2, byte 68: a quoted field goes on after its closing quote"));
    let lenient = Options { lenient: true, ..Options::default() };
    assert_eq!(shown(&read_with(backslashes.as_bytes(), &lenient).unwrap()), "1=An \\A\\ a");
    assert_eq!(lenient.warnings.lines().len(), 3);

    let wide = format!("photo_id,photo_url{}\n", ",".repeat(5000));
    assert!(answer(wide.as_bytes()).contains("more than 4096 fields"));
}

#[test]
fn damaged_sqlite_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("faces.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(&format!("BEGIN;{TABLES}COMMIT;")).unwrap();
    for id in 10..2000 {
        connection.execute("INSERT INTO faces VALUES (?, ?, 1, 'x')", (id, id)).unwrap();
    }
    drop(connection);
    let read = |path: &Path| source::candidates(&Input::File(path.to_owned()), &Options::default(), &mut |_| {});
    assert_eq!(shown(&read(&path).unwrap()), ONE);
    let mut bytes = std::fs::read(&path).unwrap();
    let page = 4096 * (bytes.len() / 4096 - 2);
    bytes[page + 8..page + 60].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("is damaged"));
}

#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn reference_faults_have_the_listed_answers() {
    let folder = support::reference::required_data().join("faults/dumps");
    let list = std::fs::read_to_string(folder.join("expect.tsv")).unwrap();
    let mut failed = Vec::new();
    for line in list.lines().skip(1) {
        let mut fields = line.split('\t');
        let (file, expected) = (fields.next().unwrap(), fields.next().unwrap());
        let options = Options::default();
        let found = source::candidates(&Input::File(folder.join(file)), &options, &mut |_| {});
        let rows = found.as_ref().map(Vec::len).map_err(ToString::to_string);
        let may_fail = expected.contains("error") || expected == "cannot be known";
        let count = match expected {
            _ if expected.starts_with("photos 1, 2") || file.starts_with("heidi") => Some(2),
            _ if expected.starts_with("3 rows") => Some(3),
            _ if expected.starts_with("2 rows") => Some(2),
            _ if expected.starts_with("1 row") => Some(1),
            _ if expected.starts_with("photo 1 ") => Some(1),
            _ => None,
        };
        let right = match (&rows, count) {
            (Err(_), _) => may_fail,
            (Ok(rows), Some(count)) => *rows == count,
            (Ok(_), None) => !expected.starts_with("error") || expected.contains(", or"),
        };
        let warned = !expected.contains("with a warning") || !options.warnings.lines().is_empty();
        // What the list says of an error is in its text.
        let told = match (expected.strip_prefix("error: "), &rows) {
            (Some("give the .tar"), Err(error)) => error.contains("give the .tar"),
            (Some("rows are in another file"), Err(error)) => error.contains("rows from another file"),
            (Some(reason), Err(error)) => error.contains(reason),
            _ => true,
        };
        if !right || !warned || !told {
            failed.push(format!("{file}: expected {expected}, found {rows:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
