//! The shapes of the statements that dumps contain besides rows, as the manuals of PostgreSQL, MySQL and MariaDB give
//! them: see `shape` for how they are written.

use super::lexer::{Dialect, Token};
use super::shape::{has_shape, is_well_formed};
use super::types::closing;

const REFERENCES: &str = "REFERENCES name [ parens ] { < MATCH ident | ON < DELETE | UPDATE > < CASCADE | RESTRICT | \
    NO ACTION | SET NULL [ parens ] | SET DEFAULT [ parens ] > | [ NOT ] DEFERRABLE | INITIALLY < DEFERRED | IMMEDIATE > \
    | NOT VALID | [ NOT ] ENFORCED > }";

fn with_references(shape: &str) -> String {
    shape.replace("references", REFERENCES)
}

/// Shapes of columns after their name.
const POSTGRES_COLUMN: &str = "ident type { < [ CONSTRAINT ident ] < NOT NULL [ NO INHERIT ] | NULL | DEFAULT expr | \
    CHECK condition [ NO INHERIT ] | UNIQUE [ NULLS [ NOT ] DISTINCT ] | PRIMARY KEY | GENERATED ALWAYS AS condition \
    [ < STORED | VIRTUAL > ] | GENERATED < ALWAYS | BY DEFAULT > AS IDENTITY [ parens ] | references > | COLLATE name | \
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

const SEQUENCE: &str = "{ < AS type | START [ WITH ] num | INCREMENT [ BY ] num | NO MINVALUE | MINVALUE num | \
    NO MAXVALUE | MAXVALUE num | CACHE num | [ NO ] CYCLE | OWNED BY name | SEQUENCE NAME name | RESTART [ WITH ] [ num ] \
    | LOGGED | UNLOGGED > }";

const FUNCTION: &str = "{ < LANGUAGE < ident | text > | TRANSFORM rest | WINDOW | IMMUTABLE | STABLE | VOLATILE | STRICT \
    | [ NOT ] LEAKPROOF | CALLED ON NULL INPUT | RETURNS NULL ON NULL INPUT | [ EXTERNAL ] SECURITY < DEFINER | INVOKER > \
    | PARALLEL < SAFE | UNSAFE | RESTRICTED > | COST num | ROWS num | SUPPORT name | SET ident FROM CURRENT | \
    SET name < TO | = > value { , value } > }";

const MYSQL_COLUMN: &str = "ident type { < NOT NULL | NULL | DEFAULT [ < - | + > ] num | DEFAULT [ ident ] text | \
    DEFAULT parens | DEFAULT < NULL | TRUE | FALSE | CURRENT_TIMESTAMP | CURRENT_DATE | CURRENT_TIME | LOCALTIME | \
    LOCALTIMESTAMP | CURRENT_USER | CURRENT_ROLE > | DEFAULT name args | DEFAULT < NEXT | PREVIOUS > VALUE FOR name | \
    ON UPDATE < CURRENT_TIMESTAMP | LOCALTIME | LOCALTIMESTAMP | NOW > [ args ] | AUTO_INCREMENT | [ PRIMARY ] KEY | \
    UNIQUE [ KEY ] | COMMENT text | < CHARACTER SET | CHARSET > value | COLLATE value | BINARY | \
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
     [ = ] text | UNION [ = ] args | < ENGINE | TYPE | AUTO_INCREMENT | AVG_ROW_LENGTH | CHECKSUM | TABLE_CHECKSUM | \
     DELAY_KEY_WRITE | INSERT_METHOD | KEY_BLOCK_SIZE | MAX_ROWS | MIN_ROWS | PACK_KEYS | ROW_FORMAT | \
     STATS_AUTO_RECALC | STATS_PERSISTENT | STATS_SAMPLE_PAGES | TRANSACTIONAL | PAGE_CHECKSUM | PAGE_COMPRESSED | \
     PAGE_COMPRESSION_LEVEL | ENCRYPTED | ENCRYPTION_KEY_ID | IETF_QUOTES | SEQUENCE | SECONDARY_ENGINE | \
     AUTOEXTEND_SIZE | NODEGROUP > [ = ] value | TABLESPACE [ = ] ident | STORAGE ident | WITH SYSTEM VERSIONING > } \
     [ PARTITION BY rest ]",
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

/// Shapes of other statements in PostgreSQL, after their first word.
fn postgres(statement: &str) -> Option<Vec<String>> {
    let owned = |shapes: &[&str]| Some(shapes.iter().map(|shape| (*shape).to_owned()).collect());
    match statement {
        "COMMENT" => owned(&[
            "ON < TABLE | VIEW | COLUMN | INDEX | SEQUENCE | SCHEMA | TYPE | DOMAIN | EXTENSION | DATABASE | ROLE | \
             [ PROCEDURAL ] LANGUAGE | COLLATION | CONVERSION | TABLESPACE | SERVER | PUBLICATION | SUBSCRIPTION | \
             STATISTICS | MATERIALIZED VIEW | FOREIGN TABLE | FOREIGN DATA WRAPPER | EVENT TRIGGER | ACCESS METHOD | \
             TEXT SEARCH < CONFIGURATION | DICTIONARY | PARSER | TEMPLATE > > name IS < text | NULL >",
            "ON LARGE OBJECT num IS < text | NULL >",
            "ON < FUNCTION | PROCEDURE | AGGREGATE | ROUTINE > name args IS < text | NULL >",
            "ON AGGREGATE name ( * ) IS < text | NULL >",
            "ON < TRIGGER | RULE | POLICY | CONSTRAINT > ident ON [ DOMAIN ] name IS < text | NULL >",
            "ON < CAST | OPERATOR | TRANSFORM > rest",
        ]),
        "DROP" => owned(&[
            "< VIEW | INDEX | SEQUENCE | SCHEMA | TYPE | DOMAIN | EXTENSION | DATABASE | ROLE | USER | GROUP | COLLATION | \
             CONVERSION | TABLESPACE | SERVER | PUBLICATION | SUBSCRIPTION | STATISTICS | [ PROCEDURAL ] LANGUAGE | \
             MATERIALIZED VIEW | FOREIGN TABLE | FOREIGN DATA WRAPPER | EVENT TRIGGER | ACCESS METHOD | TABLE | \
             TEXT SEARCH < CONFIGURATION | DICTIONARY | PARSER | TEMPLATE > > [ CONCURRENTLY ] [ IF EXISTS ] \
             name { , name } [ < CASCADE | RESTRICT > ]",
            "< FUNCTION | PROCEDURE | ROUTINE | AGGREGATE > [ IF EXISTS ] name [ < args | ( * ) > ] \
             { , name [ args ] } [ < CASCADE | RESTRICT > ]",
            "< TRIGGER | RULE | POLICY > [ IF EXISTS ] ident ON name [ < CASCADE | RESTRICT > ]",
            "< CAST | OPERATOR | TRANSFORM | OWNED | USER > rest",
        ]),
        "CREATE" => {
            let mut shapes: Vec<String> = [
                "SCHEMA [ IF NOT EXISTS ] [ name ] [ AUTHORIZATION ident ]",
                "EXTENSION [ IF NOT EXISTS ] ident [ WITH ] [ SCHEMA ident ] [ VERSION value ] [ CASCADE ]",
                "TYPE name",
                "TYPE name AS ENUM ( [ text { , text } ] )",
                "TYPE name [ AS RANGE ] parens",
                "TYPE name AS args",
                "DOMAIN name [ AS ] type { < COLLATE name | DEFAULT expr | [ CONSTRAINT ident ] < NOT NULL | NULL | \
                 CHECK condition > > }",
                "COLLATION [ IF NOT EXISTS ] name < FROM name | ( ident = value { , ident = value } ) >",
                "VIEW [ IF NOT EXISTS ] name [ ( ident { , ident } ) ] [ USING ident ] [ WITH parens ] \
                 [ TABLESPACE ident ] AS query",
                "[ UNIQUE ] INDEX [ CONCURRENTLY ] [ [ IF NOT EXISTS ] ident ] ON [ ONLY ] name [ USING ident ] parens \
                 [ INCLUDE parens ] [ NULLS [ NOT ] DISTINCT ] [ WITH parens ] [ TABLESPACE ident ] [ WHERE rest ]",
                "< FUNCTION | PROCEDURE > name args [ RETURNS < TABLE parens | [ SETOF ] type > ] function AS text \
                 [ , text ] function",
                "< FUNCTION | PROCEDURE > name args [ RETURNS < TABLE parens | [ SETOF ] type > ] function RETURN rest",
                "TRIGGER ident < BEFORE | AFTER | INSTEAD OF > event { OR event } ON name [ FROM name ] \
                 [ [ NOT ] DEFERRABLE ] [ INITIALLY < DEFERRED | IMMEDIATE > ] [ REFERENCING { < OLD | NEW > TABLE [ AS ] \
                 ident } ] [ FOR [ EACH ] < ROW | STATEMENT > ] [ WHEN parens ] EXECUTE < FUNCTION | PROCEDURE > name args",
                "< RULE | POLICY | AGGREGATE | OPERATOR | CAST | PUBLICATION | SUBSCRIPTION | SERVER | USER | ROLE | GROUP | \
                 DATABASE | STATISTICS | TEXT | EVENT | FOREIGN | CONVERSION | LANGUAGE | PROCEDURAL | TRUSTED | \
                 TRANSFORM | ACCESS | TABLESPACE | DEFAULT > rest",
            ]
            .map(|shape| {
                let event = "< INSERT | DELETE | TRUNCATE | UPDATE [ OF ident { , ident } ] >";
                shape.replace("event {", &format!("{event} {{")).replace("OR event", &format!("OR {event}"))
                    .replace("function", FUNCTION)
            })
            .into();
            shapes.push(format!("SEQUENCE [ IF NOT EXISTS ] name {SEQUENCE}"));
            Some(shapes)
        }
        "ALTER" => {
            let mut shapes: Vec<String> = [
                "< SCHEMA | TYPE | DOMAIN | VIEW | MATERIALIZED VIEW | SEQUENCE | COLLATION | CONVERSION | EXTENSION | \
                 DATABASE | TABLESPACE | SERVER | PUBLICATION | SUBSCRIPTION | STATISTICS | [ PROCEDURAL ] LANGUAGE | \
                 FOREIGN TABLE | FOREIGN DATA WRAPPER | EVENT TRIGGER | INDEX | LARGE OBJECT | FUNCTION | PROCEDURE | \
                 ROUTINE | AGGREGATE | TEXT SEARCH < CONFIGURATION | DICTIONARY > > [ IF EXISTS ] < name | num > \
                 [ < args | ( * ) > ] < OWNER TO ident | RENAME TO ident | SET SCHEMA ident >",
                "INDEX name ATTACH PARTITION name",
                "INDEX [ IF EXISTS ] name < SET < parens | TABLESPACE ident > | RESET parens | ALTER [ COLUMN ] num SET STATISTICS num >",
                "< FUNCTION | PROCEDURE | ROUTINE > name args < SET | RESET | DEPENDS > rest",
                "TYPE name ADD VALUE [ IF NOT EXISTS ] text [ < BEFORE | AFTER > text ]",
                "TYPE name < ADD | ALTER | DROP | RENAME | SET > rest",
                "DOMAIN name < ADD | ALTER | DROP | RENAME | SET | VALIDATE > rest",
                "[ MATERIALIZED ] VIEW [ IF EXISTS ] name < ALTER | SET | RESET | CLUSTER | RENAME > rest",
                "< DEFAULT PRIVILEGES | ROLE | USER | GROUP | DATABASE | SYSTEM | EXTENSION | OPERATOR | POLICY | RULE | TRIGGER | \
                 PUBLICATION | SUBSCRIPTION | SERVER | TEXT | EVENT | FOREIGN | TABLESPACE | STATISTICS > rest",
            ]
            .map(str::to_owned)
            .into();
            shapes.push(format!("SEQUENCE [ IF EXISTS ] name {SEQUENCE}"));
            Some(shapes)
        }
        "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" => owned(&[
            "[ < WORK | TRANSACTION > ] [ TO [ SAVEPOINT ] ident ] [ AND [ NO ] CHAIN ]",
            "[ < WORK | TRANSACTION > ] { [ , ] < ISOLATION LEVEL < SERIALIZABLE | REPEATABLE READ | READ COMMITTED | \
             READ UNCOMMITTED > | READ WRITE | READ ONLY | [ NOT ] DEFERRABLE > }",
            "PREPARED text",
        ]),
        "START" => {
            owned(&["TRANSACTION { [ , ] < ISOLATION LEVEL < SERIALIZABLE | REPEATABLE READ | READ COMMITTED | \
             READ UNCOMMITTED > | READ WRITE | READ ONLY | [ NOT ] DEFERRABLE > }"])
        }
        "SAVEPOINT" => owned(&["ident"]),
        "RELEASE" => owned(&["[ SAVEPOINT ] ident"]),
        _ => None,
    }
}

/// Shapes of other statements in MySQL and MariaDB, after their first word.
fn mysql(statement: &str) -> Option<Vec<String>> {
    let owned = |shapes: &[&str]| Some(shapes.iter().map(|shape| (*shape).to_owned()).collect());
    match statement {
        "LOCK" => owned(&[
            "< TABLE | TABLES > name [ [ AS ] ident ] < READ [ LOCAL ] | [ LOW_PRIORITY ] WRITE [ CONCURRENT ] > \
             { , name [ [ AS ] ident ] < READ [ LOCAL ] | [ LOW_PRIORITY ] WRITE [ CONCURRENT ] > } \
             [ < WAIT num | NOWAIT > ]",
            "INSTANCE FOR BACKUP",
        ]),
        "UNLOCK" => owned(&["< TABLE | TABLES >", "INSTANCE"]),
        "DROP" => owned(&[
            "< VIEW | PROCEDURE | FUNCTION | TRIGGER | EVENT | SEQUENCE | DATABASE | SCHEMA | SERVER | ROLE | TABLE > \
             [ IF EXISTS ] name { , name } [ < CASCADE | RESTRICT > ]",
            "< INDEX [ IF EXISTS ] ident ON name | PREPARE ident > [ rest ]",
            // The tool writes names in double quotes here, whatever the sql_mode.
            "< PROCEDURE | FUNCTION | TRIGGER | EVENT > IF EXISTS text",
            "< USER | TABLESPACE | LOGFILE | UNDO | PACKAGE | RESOURCE > rest",
        ]),
        "CREATE" => owned(&[
            "< DATABASE | SCHEMA > [ IF NOT EXISTS ] ident { [ DEFAULT ] < CHARACTER SET | CHARSET | COLLATE | ENCRYPTION > \
             [ = ] value }",
            "SEQUENCE [ IF NOT EXISTS ] name { < AS type | START [ < WITH | = > ] num | MINVALUE [ = ] num | \
             MAXVALUE [ = ] num | NO < MINVALUE | MAXVALUE | CACHE | CYCLE > | NOMINVALUE | NOMAXVALUE | \
             INCREMENT [ < BY | = > ] num | CACHE [ = ] num | NOCACHE | CYCLE | NOCYCLE | ENGINE [ = ] value | \
             COMMENT [ = ] text | ROW_FORMAT [ = ] ident | [ DEFAULT ] < CHARSET | COLLATE > [ = ] value > }",
            "VIEW [ IF NOT EXISTS ] name [ ( ident { , ident } ) ] AS query",
            "[ < UNIQUE | FULLTEXT | SPATIAL > ] INDEX [ IF NOT EXISTS ] ident [ USING ident ] ON name parens [ rest ]",
            "< USER | ROLE | SERVER | TABLESPACE | LOGFILE | UNDO | PACKAGE | RESOURCE > rest",
            "< FUNCTION | AGGREGATE FUNCTION > name RETURNS ident SONAME text",
        ]),
        "DO" => owned(&[
            "SETVAL ( name , num [ , num [ , num ] ] )",
            "< SLEEP | RELEASE_LOCK | GET_LOCK | RELEASE_ALL_LOCKS > args",
        ]),
        "BEGIN" => owned(&["[ WORK ]", "NOT ATOMIC rest"]),
        "COMMIT" | "ROLLBACK" => {
            owned(&["[ WORK ] [ AND [ NO ] CHAIN ] [ [ NO ] RELEASE ]", "[ WORK ] TO [ SAVEPOINT ] ident"])
        }
        "START" => owned(&[
            "TRANSACTION { [ , ] < WITH CONSISTENT SNAPSHOT | READ WRITE | READ ONLY > }",
            "< SLAVE | REPLICA | GROUP_REPLICATION > [ rest ]",
        ]),
        "SAVEPOINT" => owned(&["ident"]),
        "RELEASE" => owned(&["SAVEPOINT ident"]),
        _ => None,
    }
}

/// Whether a statement without rows could be one of its dialect. `tokens` follow its first word.
pub fn is_statement(dialect: Dialect, first: &str, tokens: &[Token]) -> bool {
    let shapes = match dialect {
        Dialect::Postgres => postgres(first),
        Dialect::MySql => mysql(first),
    };
    match shapes {
        Some(shapes) => {
            let shapes: Vec<&str> = shapes.iter().map(String::as_str).collect();
            has_shape(dialect, tokens, &shapes)
        }
        None => tokens.is_empty() || is_well_formed(dialect, tokens, false),
    }
}

/// Whether CREATE SEQUENCE or CREATE FUNCTION has an option twice.
pub fn repeats_option(tokens: &[Token]) -> bool {
    const OPTIONS: [&str; 7] = ["START", "INCREMENT", "MINVALUE", "MAXVALUE", "CACHE", "CYCLE", "LANGUAGE"];
    let applies = tokens.first().is_some_and(|token| token.is_any(&["SEQUENCE", "FUNCTION", "PROCEDURE"]));
    applies && OPTIONS.iter().any(|option| tokens.iter().filter(|token| token.is(option)).count() > 1)
}

/// Whether the body of a function between BEGIN ATOMIC and END has statements that may be there.
pub fn is_atomic_body(tokens: &[Token]) -> bool {
    let [body @ .., end] = tokens else { return false };
    let mut statements = body.split(|token| *token == Token::Stop);
    let last = statements.next_back().unwrap_or_default();
    let is_known = |statement: &[Token]| {
        statement.first().is_some_and(|first| {
            first.is_any(&["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "MERGE", "RETURN"])
        }) && is_well_formed(Dialect::Postgres, statement, true)
    };
    end.is("END") && last.is_empty() && statements.all(is_known)
}

/// Whether a function with the header of PostgreSQL has a body of statements: `BEGIN ATOMIC ... END`.
pub fn is_atomic_function(tokens: &[Token]) -> Option<bool> {
    let at = tokens.windows(2).position(|pair| pair[0].is("BEGIN") && pair[1].is("ATOMIC"))?;
    let header = format!("< FUNCTION | PROCEDURE > name args [ RETURNS < TABLE parens | [ SETOF ] type > ] {FUNCTION}");
    Some(has_shape(Dialect::Postgres, &tokens[..at], &[&header]) && is_atomic_body(&tokens[at + 2..]))
}

/// Whether tokens are a trigger of MySQL up to its body.
pub fn is_mysql_trigger(tokens: &[Token]) -> bool {
    let shape = "TRIGGER [ IF NOT EXISTS ] name < BEFORE | AFTER > < INSERT | UPDATE | DELETE > ON name FOR EACH ROW";
    has_shape(Dialect::MySql, tokens, &[shape])
}

/// Whether tokens may follow the rows of an INSERT.
pub fn is_insert_clause(dialect: Dialect, tokens: &[Token]) -> bool {
    let shapes: &[&str] = match dialect {
        Dialect::Postgres => &[
            "ON CONFLICT [ parens ] [ WHERE expr ] DO NOTHING [ RETURNING rest ]",
            "ON CONFLICT ON CONSTRAINT ident DO NOTHING [ RETURNING rest ]",
            "ON CONFLICT [ parens ] [ WHERE expr ] DO UPDATE SET rest",
            "ON CONFLICT ON CONSTRAINT ident DO UPDATE SET rest",
            "RETURNING rest",
        ],
        Dialect::MySql => &["[ AS ident [ parens ] ] [ ON DUPLICATE KEY UPDATE rest ]", "RETURNING rest"],
    };
    has_shape(dialect, tokens, shapes)
}

/// Whether tokens are the definition of a column.
pub fn is_column(dialect: Dialect, tokens: &[Token]) -> bool {
    let shape = match dialect {
        Dialect::Postgres => POSTGRES_COLUMN,
        Dialect::MySql => MYSQL_COLUMN,
    };
    has_shape(dialect, tokens, &[&with_references(shape)])
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
            let shapes = POSTGRES_CHANGES.map(|shape| shape.replace("[ sequence ]", &format!("[ ( {SEQUENCE} ) ]")));
            has_shape(dialect, tokens, &shapes.each_ref().map(String::as_str))
        }
        Dialect::MySql => has_shape(dialect, tokens, &MYSQL_CHANGES) || is_table_end(dialect, tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::stream::{Progress, ReadMeter, Stream};
    use super::super::lexer::Lexer;
    use super::*;

    fn tokens(dialect: Dialect, text: &str) -> Vec<Token> {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, dialect);
        std::iter::from_fn(|| Some(lexer.token().unwrap()).filter(|token| *token != Token::End)).collect()
    }

    fn check(dialect: Dialect, is: fn(Dialect, &[Token]) -> bool, right: &[&str], wrong: &[&str]) {
        for text in right {
            assert!(is(dialect, &tokens(dialect, text)), "{text}");
        }
        for text in wrong {
            assert!(!is(dialect, &tokens(dialect, text)), "{text}");
        }
    }

    fn is_any_statement(dialect: Dialect, tokens: &[Token]) -> bool {
        let Token::Word(first) = &tokens[0] else { panic!("{tokens:?}") };
        is_statement(dialect, first, &tokens[1..])
            || (dialect == Dialect::Postgres && is_atomic_function(&tokens[1..]) == Some(true))
    }

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
    fn statements_have_shapes() {
        check(
            Dialect::Postgres,
            is_any_statement,
            &[
                "COMMENT ON TABLE public.faces IS 'it''s; -- x'",
                "COMMENT ON FUNCTION public.f(integer, text) IS NULL",
                "CREATE SEQUENCE public.s AS integer START WITH 1 INCREMENT BY 1 NO MINVALUE NO MAXVALUE CACHE 1",
                "CREATE VIEW public.v AS SELECT (labels.name || ';'::text) AS n, labels.id x FROM public.labels labels",
                "CREATE INDEX i ON ONLY public.faces USING btree (id, lower(name) DESC) WHERE (id > 0)",
                "CREATE TRIGGER t BEFORE INSERT OR UPDATE OF a, b ON public.faces FOR EACH ROW EXECUTE FUNCTION f('a')",
                "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ x $$",
                "CREATE FUNCTION one() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END",
                "CREATE DOMAIN public.short AS text CONSTRAINT c CHECK ((length(VALUE) < 9))",
                "CREATE TYPE public.mood AS ENUM ('sad', 'it''s')",
                "DROP FUNCTION IF EXISTS public.f()",
                "ALTER FUNCTION public.f() OWNER TO postgres",
                "ALTER SEQUENCE public.s OWNED BY public.t.id",
                "GRANT SELECT,INSERT ON TABLE public.faces TO reader",
                "COMMIT",
            ],
            &[
                "COMMENT ON TABLE public.faces 'x'",
                "COMMENT ON SCHEMMA public IS 'x'",
                "CREATE SEQUENCE s NONO MAXVALUE",
                "CREATE SEQUENCE public..s",
                "CREATE VIEW v AS SELECT SELECT 1",
                "CREATE VIEW v AS SELECT (a || 'b') ASS n FROM t",
                "CREATE VIEW v AS SELCTE 1",
                "CREATE TRIGGER t AFTER INSERT ON public.faces FOR EACH R OW EXECUTE FUNCTION f()",
                "CREATE FUNCTION f() RETURNS trigger AS LANGUAGE",
                "CREATE FUNCTION one() RETURNS integer LANGUAGE sql BEGIN ATOMIC SET x = 1; END",
                "CREATE DOMAIN public.short AS text CHECK ((lengthVALUE) < 9))",
                "DROP FUNCTION IF EXISTS f())",
                "DROP TYPE IF EXSTS f",
                "ALTER TABLE2 x",
                "ALTER FUNCTION public.f() OWER TO postgres",
                "GRANT SELECT,,INSERT ON x TO y",
                "COMMIT COMMIT",
            ],
        );
        check(
            Dialect::MySql,
            is_any_statement,
            &[
                "LOCK TABLES `a` WRITE, b AS c READ LOCAL",
                "UNLOCK TABLES",
                "DROP VIEW IF EXISTS `v`",
                "CREATE SEQUENCE `s` start with 5 minvalue 1 maxvalue 9223372036854775806 increment by -1 cache 1000 nocycle \
                 ENGINE=InnoDB",
                "DO SETVAL(`s`, 5, 0)",
                "CREATE VIEW `v` AS SELECT 1 AS `a`, count(*) AS n FROM `t` WHERE `t`.`a` = -1",
            ],
            &[
                "LOCK TABLES `a`",
                "UNLOCK TBLAES",
                "DROP VIEW I EXISTS `v`",
                "CREATE SEQUENCE `s` start with 5 minvlue 1",
                "DO SETVAL(`s`, , 0)",
                "CREATE VIEW `v` AS SELECT 1 AS AS `a`",
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
