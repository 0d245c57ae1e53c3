//! The shapes of statements besides those of rows and tables, as the manuals of PostgreSQL, MySQL and MariaDB give them:
//! see `shape` for how they are written.

use super::lexer::{Dialect, Token};
use super::shape::has_shape;
use super::word_order::is_well_formed;

/// The options of a sequence.
pub const SEQUENCE: &str = "{ < AS type | START [ WITH ] num | INCREMENT [ BY ] num | NO MINVALUE | MINVALUE num | \
    NO MAXVALUE | MAXVALUE num | CACHE num | [ NO ] CYCLE | OWNED BY name | SEQUENCE NAME name | RESTART [ WITH ] [ num ] \
    | LOGGED | UNLOGGED > }";

const FUNCTION: &str = "{ < LANGUAGE < ident | text > | TRANSFORM rest | WINDOW | IMMUTABLE | STABLE | VOLATILE | STRICT \
    | [ NOT ] LEAKPROOF | CALLED ON NULL INPUT | RETURNS NULL ON NULL INPUT | [ EXTERNAL ] SECURITY < DEFINER | INVOKER > \
    | PARALLEL < SAFE | UNSAFE | RESTRICTED > | COST num | ROWS num | SUPPORT name | SET ident FROM CURRENT | \
    SET name < TO | = > value { , value } > }";

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
                "DOMAIN name [ AS ] type { < COLLATE name | DEFAULT default | [ CONSTRAINT ident ] < NOT NULL | NULL | \
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
                "RULE ident AS ON < SELECT | INSERT | UPDATE | DELETE > TO name [ WHERE expr ] DO [ < ALSO | INSTEAD > ] \
                 < NOTHING | rest >",
                "< POLICY | AGGREGATE | OPERATOR | CAST | PUBLICATION | SUBSCRIPTION | SERVER | USER | ROLE | GROUP | \
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

/// Whether CREATE SEQUENCE, CREATE FUNCTION or an identity has an option twice.
pub fn repeats_option(tokens: &[Token]) -> bool {
    const OPTIONS: [&str; 7] = ["START", "INCREMENT", "MINVALUE", "MAXVALUE", "CACHE", "CYCLE", "LANGUAGE"];
    const APPLIES: [&str; 3] = ["SEQUENCE", "FUNCTION", "PROCEDURE"];
    let identity = tokens.iter().any(|token| token.is("IDENTITY"));
    let applies = identity || tokens.first().is_some_and(|token| token.is_any(&APPLIES));
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

#[cfg(test)]
mod tests {
    use super::super::shape::tests::check;
    use super::*;

    fn is_any_statement(dialect: Dialect, tokens: &[Token]) -> bool {
        let Token::Word(first) = &tokens[0] else { panic!("{tokens:?}") };
        is_statement(dialect, first, &tokens[1..])
            || (dialect == Dialect::Postgres && is_atomic_function(&tokens[1..]) == Some(true))
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
}
