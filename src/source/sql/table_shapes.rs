//! The shapes of columns, constraints and changes of tables, as the manuals of PostgreSQL, MySQL and MariaDB give them:
//! see `shape` for how they are written.

use super::lexer::{Dialect, Token};
use super::shape::has_shape;
use super::statement_shapes::SEQUENCE;
use super::token_list::closing;

const REFERENCES: &str = "REFERENCES name [ parens ] { < MATCH ident | ON < DELETE | UPDATE > < CASCADE | RESTRICT | \
    NO ACTION | SET NULL [ parens ] | SET DEFAULT [ parens ] > | [ NOT ] DEFERRABLE | INITIALLY < DEFERRED | IMMEDIATE > \
    | NOT VALID | [ NOT ] ENFORCED > }";

fn with_references(shape: &str) -> String {
    shape.replace("references", REFERENCES)
}

fn with_sequence(shape: &str) -> String {
    shape.replace("[ sequence ]", &format!("[ ( {SEQUENCE} ) ]"))
}

/// Shapes of columns after their name.
const POSTGRES_COLUMN: &str = "ident type { < [ CONSTRAINT ident ] < NOT NULL [ NO INHERIT ] | NULL | DEFAULT default | \
    CHECK condition [ NO INHERIT ] | UNIQUE [ NULLS [ NOT ] DISTINCT ] | PRIMARY KEY | GENERATED ALWAYS AS condition \
    [ < STORED | VIRTUAL > ] | GENERATED < ALWAYS | BY DEFAULT > AS IDENTITY [ sequence ] | references > | COLLATE name | \
    STORAGE ident | COMPRESSION ident | OPTIONS parens | WITH [ NO ] VALUES > }";

const POSTGRES_CONSTRAINTS: [&str; 7] = [
    "[ CONSTRAINT ident ] < PRIMARY KEY | UNIQUE [ NULLS [ NOT ] DISTINCT ] > parens [ INCLUDE parens ] [ WITH parens ] \
     [ USING INDEX TABLESPACE ident ] [ [ NOT ] DEFERRABLE ] [ INITIALLY < DEFERRED | IMMEDIATE > ]",
    "[ CONSTRAINT ident ] < PRIMARY KEY | UNIQUE > USING INDEX ident [ [ NOT ] DEFERRABLE ] [ INITIALLY ident ]",
    "[ CONSTRAINT ident ] FOREIGN KEY parens references",
    "[ CONSTRAINT ident ] CHECK condition { < NO INHERIT | NOT VALID | [ NOT ] ENFORCED > }",
    "[ CONSTRAINT ident ] EXCLUDE rest",
    "[ CONSTRAINT ident ] NOT NULL ident [ NO INHERIT ] [ NOT VALID ]",
    "LIKE name { < INCLUDING | EXCLUDING > ident }",
];

const POSTGRES_TABLE: [&str; 2] = [
    "{ < INHERITS parens | PARTITION BY ident parens | WITH args | WITHOUT OIDS | TABLESPACE ident | USING ident | \
     SERVER ident | OPTIONS parens | ON COMMIT rest | PARTITION OF name [ parens ] < DEFAULT | FOR VALUES IN parens | \
     FOR VALUES FROM parens TO parens | FOR VALUES WITH ( ident num , ident num ) > > }",
    "< AS | OF | LIKE | WITH > rest",
];

const POSTGRES_CHANGES: [&str; 24] = [
    "OWNER TO ident",
    "ATTACH PARTITION name < DEFAULT | FOR VALUES IN parens | FOR VALUES FROM parens TO parens | FOR VALUES WITH ( ident num , ident num ) >",
    "DETACH PARTITION name [ < CONCURRENTLY | FINALIZE > ]",
    "[ NO ] INHERIT name",
    "< ENABLE | DISABLE > [ < ALWAYS | REPLICA > ] < TRIGGER | RULE > ident",
    "< ENABLE | DISABLE > ROW LEVEL SECURITY",
    "[ NO ] FORCE ROW LEVEL SECURITY",
    "CLUSTER ON ident",
    "SET WITHOUT < CLUSTER | OIDS >",
    "REPLICA IDENTITY < DEFAULT | FULL | NOTHING | USING INDEX ident >",
    "SET < LOGGED | UNLOGGED | parens | TABLESPACE ident | SCHEMA ident | ACCESS METHOD ident >",
    "RESET parens",
    "DROP CONSTRAINT [ IF EXISTS ] ident [ < CASCADE | RESTRICT > ]",
    "DROP [ COLUMN ] [ IF EXISTS ] ident [ < CASCADE | RESTRICT > ]",
    "VALIDATE CONSTRAINT ident",
    "RENAME rest",
    "OPTIONS parens",
    "OF name",
    "NOT OF",
    "ALTER [ COLUMN ] ident < SET DEFAULT expr | DROP DEFAULT | SET NOT NULL | DROP NOT NULL | SET STATISTICS num | \
     SET STORAGE ident | SET COMPRESSION ident | SET parens | RESET parens | DROP IDENTITY [ IF EXISTS ] | \
     DROP EXPRESSION [ IF EXISTS ] | SET EXPRESSION AS parens | SET GENERATED ident >",
    "ALTER [ COLUMN ] ident [ SET DATA ] TYPE type [ COLLATE name ] [ USING expr ]",
    "ALTER [ COLUMN ] ident ADD GENERATED < ALWAYS | BY DEFAULT > AS IDENTITY [ sequence ]",
    "ALTER CONSTRAINT ident rest",
    "ALTER [ COLUMN ] ident RESTART [ WITH num ]",
];
const MYSQL_COLUMN: &str = "ident type { < NOT NULL | NULL | DEFAULT [ < - | + > ] num | DEFAULT [ ident ] text | \
    DEFAULT parens | DEFAULT < NULL | TRUE | FALSE | CURRENT_TIMESTAMP | CURRENT_DATE | CURRENT_TIME | LOCALTIME | \
    LOCALTIMESTAMP | CURRENT_USER | CURRENT_ROLE > | DEFAULT name args | DEFAULT < NEXT | PREVIOUS > VALUE FOR name | \
    ON UPDATE < CURRENT_TIMESTAMP | LOCALTIME | LOCALTIMESTAMP | NOW > [ args ] | AUTO_INCREMENT | [ PRIMARY ] KEY | \
    UNIQUE [ KEY ] | COMMENT text | < CHARACTER SET | CHARSET > plain | COLLATE plain | BINARY | \
    [ GENERATED ALWAYS ] AS condition [ < VIRTUAL | STORED | PERSISTENT > ] | INVISIBLE | VISIBLE | \
    [ CONSTRAINT [ ident ] ] CHECK condition [ [ NOT ] ENFORCED ] | references | COLUMN_FORMAT ident | STORAGE ident | \
    SRID num | REF_SYSTEM_ID = num | COMPRESSED [ = ident ] | < WITH | WITHOUT > SYSTEM VERSIONING | \
    < ENGINE_ATTRIBUTE | SECONDARY_ENGINE_ATTRIBUTE > = text | FIRST | AFTER ident | \
    GENERATED ALWAYS AS ROW < START | END > > }";

const MYSQL_KEY_OPTIONS: &str = "{ < USING ident | COMMENT text | KEY_BLOCK_SIZE [ = ] num | WITH PARSER ident | VISIBLE \
    | INVISIBLE | [ NOT ] IGNORED | CLUSTERING [ = ] ident > }";

const MYSQL_CONSTRAINTS: [&str; 6] = [
    "[ CONSTRAINT [ ident ] ] PRIMARY KEY [ ident ] [ USING ident ] parens options",
    "[ CONSTRAINT [ ident ] ] UNIQUE [ < KEY | INDEX > ] [ ident ] [ USING ident ] parens options",
    "< FULLTEXT | SPATIAL | VECTOR > [ < KEY | INDEX > ] [ ident ] parens options",
    "< KEY | INDEX > [ IF NOT EXISTS ] [ ident ] [ USING ident ] parens options",
    "[ CONSTRAINT [ ident ] ] FOREIGN KEY [ IF NOT EXISTS ] [ ident ] parens references",
    "[ CONSTRAINT [ ident ] ] CHECK condition [ [ NOT ] ENFORCED ]",
];

const MYSQL_TABLE: [&str; 2] = [
    "{ [ , ] < [ DEFAULT ] < CHARACTER SET | CHARSET | COLLATE > [ = ] value | < COMMENT | PASSWORD | CONNECTION | \
     ENCRYPTION | COMPRESSION | DATA DIRECTORY | INDEX DIRECTORY | ENGINE_ATTRIBUTE | SECONDARY_ENGINE_ATTRIBUTE > \
     [ = ] text | UNION [ = ] args | < ENGINE | TYPE > [ = ] plain | < AUTO_INCREMENT | AVG_ROW_LENGTH | CHECKSUM | TABLE_CHECKSUM | \
     DELAY_KEY_WRITE | INSERT_METHOD | KEY_BLOCK_SIZE | MAX_ROWS | MIN_ROWS | PACK_KEYS | ROW_FORMAT | \
     STATS_AUTO_RECALC | STATS_PERSISTENT | STATS_SAMPLE_PAGES | TRANSACTIONAL | PAGE_CHECKSUM | PAGE_COMPRESSED | \
     PAGE_COMPRESSION_LEVEL | ENCRYPTED | ENCRYPTION_KEY_ID | IETF_QUOTES | SEQUENCE | SECONDARY_ENGINE | \
     AUTOEXTEND_SIZE | NODEGROUP > [ = ] value | TABLESPACE [ = ] ident | STORAGE ident | WITH SYSTEM VERSIONING > } \
     [ PARTITION BY < [ LINEAR ] < HASH | KEY > [ ALGORITHM = num ] args [ PARTITIONS num ] [ parens ] | \
     < RANGE | LIST > [ COLUMNS ] parens [ PARTITIONS num ] [ SUBPARTITION BY [ LINEAR ] < HASH | KEY > args \
     [ SUBPARTITIONS num ] ] [ parens ] | SYSTEM_TIME rest > ]",
    "[ < IGNORE | REPLACE > ] < AS | SELECT | LIKE | WITH | VALUES | TABLE > rest",
];

/// Changes of ALTER TABLE in MySQL, whose columns and constraints have shapes of their own.
const MYSQL_CHANGES: [&str; 14] = [
    "< DISABLE | ENABLE > KEYS",
    "< ADD | DROP | COALESCE | REORGANIZE | EXCHANGE | ANALYZE | CHECK | OPTIMIZE | REBUILD | REPAIR | REMOVE | \
     TRUNCATE | DISCARD | IMPORT | CONVERT > < PARTITION | PARTITIONING | TABLESPACE | TABLE > [ rest ]",
    "CONVERT TO CHARACTER SET value [ COLLATE [ = ] value ]",
    "DROP < KEY | INDEX | CONSTRAINT | CHECK > [ IF EXISTS ] ident",
    "DROP PRIMARY KEY",
    "DROP FOREIGN KEY [ IF EXISTS ] ident",
    "DROP [ COLUMN ] [ IF EXISTS ] ident [ < CASCADE | RESTRICT > ]",
    "ALTER [ COLUMN ] ident < SET DEFAULT expr | DROP DEFAULT >",
    "ALTER < INDEX | KEY | CHECK | CONSTRAINT > ident rest",
    "RENAME rest",
    "ORDER BY rest",
    "FORCE",
    "< ALGORITHM | LOCK > [ = ] ident",
    "< < WITH | WITHOUT > VALIDATION | < ADD | DROP > SYSTEM VERSIONING | ADD PERIOD rest >",
];

/// Whether tokens are the definition of a column.
pub fn is_column(dialect: Dialect, tokens: &[Token]) -> bool {
    let shape = match dialect {
        Dialect::Postgres => POSTGRES_COLUMN,
        Dialect::MySql => MYSQL_COLUMN,
    };
    has_shape(dialect, tokens, &[&with_sequence(&with_references(shape))])
}

/// Whether tokens are a constraint or an index in the definition of a table.
pub fn is_constraint(dialect: Dialect, tokens: &[Token]) -> bool {
    let shapes: Vec<String> = match dialect {
        Dialect::Postgres => POSTGRES_CONSTRAINTS.map(with_references).into(),
        Dialect::MySql => {
            let mut shapes: Vec<String> =
                MYSQL_CONSTRAINTS.map(|shape| with_references(shape).replace("options", MYSQL_KEY_OPTIONS)).into();
            shapes.push("PERIOD FOR ident parens".into());
            shapes
        }
    };
    let shapes: Vec<&str> = shapes.iter().map(String::as_str).collect();
    has_shape(dialect, tokens, &shapes)
}

/// Whether tokens may follow the columns of a table.
pub fn is_table_end(dialect: Dialect, tokens: &[Token]) -> bool {
    let shapes: &[&str] = match dialect {
        Dialect::Postgres => &POSTGRES_TABLE,
        Dialect::MySql => &MYSQL_TABLE,
    };
    has_shape(dialect, tokens, shapes)
}

/// Whether tokens are a change of a table.
pub fn is_change(dialect: Dialect, tokens: &[Token]) -> bool {
    let adds = tokens.first().is_some_and(|token| token.is("ADD"));
    let modifies = tokens.first().is_some_and(|token| token.is_any(&["MODIFY", "CHANGE"]));
    if adds && is_constraint(dialect, &tokens[1..]) {
        return true;
    }
    if adds || (modifies && dialect == Dialect::MySql) {
        let mut from = 1 + usize::from(tokens.get(1).is_some_and(|token| token.is("COLUMN")));
        if tokens.get(from).is_some_and(|token| token.is("IF")) {
            from += 2 + usize::from(tokens.get(from + 1).is_some_and(|token| token.is("NOT")));
        }
        from += usize::from(tokens[0].is("CHANGE"));
        let rest = tokens.get(from..).unwrap_or_default();
        let listed = matches!(rest.first(), Some(Token::Symbol(b'('))) && closing(rest, 0) + 1 == rest.len();
        if listed || is_column(dialect, rest) {
            return true;
        }
    }
    match dialect {
        Dialect::Postgres => {
            let shapes = POSTGRES_CHANGES.map(with_sequence);
            has_shape(dialect, tokens, &shapes.each_ref().map(String::as_str))
        }
        Dialect::MySql => has_shape(dialect, tokens, &MYSQL_CHANGES) || is_table_end(dialect, tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::check;
    use super::*;

    #[test]
    fn columns_have_shapes() {
        check(
            Dialect::Postgres,
            is_column,
            &[
                "id numeric(12,2) NOT NULL",
                "\"a b\" public.citext COLLATE public.any_case DEFAULT 'x'::text || 'y' NOT NULL",
                "t timestamp(3) with time zone DEFAULT now()",
                "a text[] DEFAULT ARRAY['a'::text, 'b'::text]",
                "g text GENERATED ALWAYS AS (('a,b); --'::text || x)) STORED",
                "i integer GENERATED BY DEFAULT AS IDENTITY (START WITH 5)",
                "c character varying(9)[] CONSTRAINT x CHECK ((c > 0) AND NOT y)",
                "p integer REFERENCES public.photos(id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED",
                "geom public.geometry(Point,4326)",
                "x integer DEFAULT '-1'::integer",
                "n double precision DEFAULT (- 1.5e3)",
            ],
            &[
                "id numeric(,250) NOT NULL",
                "id numeric(12,2) NOT",
                "id numeric(12,2) NOT NUL",
                "id NOT NULL",
                "t timestamp without",
                "g text GENERATED ALWAY AS ('a') STORED",
                "g text GENERATED ALWAYS AS ('a':::text) STORED",
                "a text DEFAULT NOT NULL",
                "a text DEFAULT ( > 0)",
                "a text b text",
                "\"\" text",
                "a numeric 12",
            ],
        );
        check(
            Dialect::MySql,
            is_column,
            &[
                "`id` int(11) unsigned zerofill NOT NULL AUTO_INCREMENT COMMENT 'it''s'",
                "`c` varchar(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL",
                "`t` timestamp(3) NULL DEFAULT current_timestamp(3) ON UPDATE current_timestamp(3)",
                "e enum('a','b),') DEFAULT 'a'",
                "v int(11) GENERATED ALWAYS AS (1 + 1) VIRTUAL",
                "j longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`j`))",
                "b bit(9) DEFAULT b'101'",
                "i int(11) INVISIBLE DEFAULT 3",
                "d double DEFAULT -1.5e3",
                "u uuid DEFAULT uuid()",
                "s bigint(20) DEFAULT nextval(`db`.`s`)",
                "p point NOT NULL SRID 4326",
            ],
            &[
                "`id` (11int) DEFAULT NULL",
                "`id` int(11 DEFAULT) NULL",
                "`id` int(11) DFAEULT NULL",
                "`id` varchar() NOT NULL",
                "`c` varchar(40) CHARACTER SET utf8mb4 COLLATE NOT NULL",
                "`c` varchar(40) HARACTER SET utf8mb4",
                "`id` longext",
                "`id` int(11) DEFAULT NULL NULL DEFAULT",
                "`t` timestamp DEFAULT current_tiimestamp",
            ],
        );
    }

    #[test]
    fn changes_and_ends_of_tables_have_shapes() {
        check(
            Dialect::Postgres,
            is_change,
            &[
                "ADD CONSTRAINT faces_pkey PRIMARY KEY (id)",
                "ADD CONSTRAINT f FOREIGN KEY (photo_id) REFERENCES public.photos(id) ON DELETE CASCADE NOT VALID",
                "OWNER TO postgres",
                "ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY ( SEQUENCE NAME public.s START WITH 1 NO MINVALUE CACHE 1 )",
                "ATTACH PARTITION public.\"part 0\" FOR VALUES WITH (modulus 2, remainder 0)",
                "ADD COLUMN note text DEFAULT 'x'",
                "ALTER COLUMN id SET DEFAULT nextval('public.s'::regclass)",
            ],
            &[
                "ADD CCONSTRAINT x PRIMARY KEY (id)",
                "ADD CONSTRAINT x PRIMMARY KEY (id)",
                "ADD CONSTRAINT x PRIMARY KEY (\"d\"i i i)",
                "OWNER TO a e",
                "OWER TO postgres",
                "ENABLE KEYS KEYS",
            ],
        );
        check(
            Dialect::MySql,
            is_change,
            &[
                "DISABLE KEYS",
                "ADD KEY `k` (`a`(10),`b` DESC) USING BTREE",
                "AUTO_INCREMENT=7",
                "MODIFY `id` int(11) NOT NULL",
            ],
            &["DISABLLE KEYS", "ENABLE KEY", "ADD KEY `k` ()", "MODIFY `id` it(11)"],
        );
        check(
            Dialect::MySql,
            is_table_end,
            &[
                "",
                "ENGINE=InnoDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci COMMENT='it''s'",
                "ENGINE=InnoDB PARTITION BY HASH (`id`) PARTITIONS 2",
            ],
            &["ENGINE=InnoDB DEFAULTCHARSET=utf8mb4", "ENGINE==InnoDB", "ENGINE=InnoDB DEFAULT CHARSET="],
        );
        check(
            Dialect::Postgres,
            is_table_end,
            &["", "INHERITS (public.a, b)", "PARTITION BY HASH (id)", "WITH (fillfactor='70') TABLESPACE x"],
            &["INHERITS", "PARTITON BY HASH (id)"],
        );
    }
}
