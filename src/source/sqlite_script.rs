//! Loads a script of SQLite, such as `.dump` writes it, into a temporary database. SQLite itself follows every
//! statement, so that what it refuses is refused, and what it takes gives its answer.
//!
//! The script is split as the program sqlite3 splits it. It cannot reach other files, and what it may compute and store
//! is bounded by its own length.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Batch, Connection, ErrorCode, Statement};

use super::error::SourceError;
use super::mapping::Role;
use super::sql::DUMP_ANEW;
use super::sqlite::Reading;
use super::stream::Stream;
use facemill_domain::Printable;

/// Commands of sqlite3 that change no rows.
const HARMLESS_COMMANDS: [&str; 14] = [
    "bail",
    "changes",
    "echo",
    "explain",
    "headers",
    "mode",
    "nullvalue",
    "print",
    "separator",
    "show",
    "stats",
    "timeout",
    "timer",
    "width",
];

/// Pragmas that change what a script means. The others have no effect here.
const PRAGMAS: [&str; 5] =
    ["foreign_keys", "defer_foreign_keys", "recursive_triggers", "encoding", "case_sensitive_like"];

/// Functions that reach other files, or make large values of nothing.
const FORBIDDEN_FUNCTIONS: [&str; 8] =
    ["load_extension", "fts3_tokenizer", "randomblob", "zeroblob", "printf", "format", "group_concat", "string_agg"];

/// Functions whose value only the database knew when a row was added.
const UNKNOWN_VALUES: [&str; 4] = ["random", "current_timestamp", "current_date", "current_time"];

/// Steps of SQLite's machine that a script may take at least, and for each of its bytes.
const MIN_STEPS: i64 = 100_000_000;
const STEPS_PER_BYTE: i64 = 2_000;
/// Steps between two looks at the clock.
const STEPS_AT_ONCE: i32 = 10_000;
/// The time that a script may take at least, and for each MiB of it.
const MIN_TIME: Duration = Duration::from_secs(10);
const TIME_PER_MIB: Duration = Duration::from_secs(2);
/// Pages of 4 KiB that the database may have at least, and one more for so many bytes of the script.
const MIN_PAGES: u64 = 65_536;
const BYTES_PER_PAGE: u64 = 200;
/// Bytes of a value.
const MAX_VALUE: i32 = 64 << 20;

/// What a script may still compute.
struct Budget {
    steps: AtomicI64,
    /// Milliseconds after `start`.
    deadline: AtomicI64,
    start: Instant,
}

impl Budget {
    fn grow(&self, bytes: usize) {
        self.steps.fetch_add(STEPS_PER_BYTE * bytes as i64, Ordering::Relaxed);
        let time = (TIME_PER_MIB.as_millis() as usize * bytes) >> 20;
        self.deadline.fetch_add(time as i64, Ordering::Relaxed);
    }

    fn is_used_up(&self) -> bool {
        let left = self.steps.fetch_sub(i64::from(STEPS_AT_ONCE), Ordering::Relaxed);
        left < 0 || self.start.elapsed().as_millis() as i64 > self.deadline.load(Ordering::Relaxed)
    }
}

/// Loads the script. The database lives as long as the connection.
///
/// # Errors
/// SQLite refuses a statement, the script is truncated, or it needs more than its length allows.
pub fn load(stream: Stream<'_>, reading: &Reading<'_>) -> Result<Connection, SourceError> {
    // A file without a name is temporary: SQLite keeps what fits its cache in memory, and deletes the rest at the end.
    let mut connection = Connection::open("")?;
    let rights = Arc::new(Rights::default());
    let budget = Arc::new(Budget {
        steps: AtomicI64::new(MIN_STEPS),
        deadline: AtomicI64::new(MIN_TIME.as_millis() as i64),
        start: Instant::now(),
    });
    connection.execute_batch("PRAGMA foreign_keys = OFF")?;
    confine(&mut connection, &rights, &budget)?;
    let mut loader = Loader { stream, reading, rights, budget, pages: 0, changes: 0 };
    loader.all(&connection)?;
    if !connection.is_autocommit() {
        return Err(loader.stream.truncated("BEGIN has no COMMIT: the database keeps nothing"));
    }
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    Ok(connection)
}

/// What the statement that is prepared may do.
#[derive(Default)]
struct Rights {
    /// It is ours, and not the script's.
    own: AtomicBool,
    /// Its rows count, so that each value must be known.
    counts: AtomicBool,
}

/// Takes from a connection what a script must not do.
fn confine(connection: &mut Connection, rights: &Arc<Rights>, budget: &Arc<Budget>) -> Result<(), rusqlite::Error> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 50)?;
    let rights = Arc::clone(rights);
    connection.authorizer(Some(move |context: AuthContext<'_>| match context.action {
        _ if rights.own.load(Ordering::Relaxed) => Authorization::Allow,
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Recursive => Authorization::Deny,
        AuthAction::Pragma { pragma_name, .. } => {
            match PRAGMAS.iter().any(|known| pragma_name.eq_ignore_ascii_case(known)) {
                true => Authorization::Allow,
                false => Authorization::Ignore,
            }
        }
        AuthAction::Function { function_name } => {
            let is = |known: &&str| function_name.eq_ignore_ascii_case(known);
            let unknown = rights.counts.load(Ordering::Relaxed) && UNKNOWN_VALUES.iter().any(is);
            match unknown || FORBIDDEN_FUNCTIONS.iter().any(is) {
                true => Authorization::Deny,
                false => Authorization::Allow,
            }
        }
        _ => Authorization::Allow,
    }))?;
    let budget = Arc::clone(budget);
    connection.progress_handler(STEPS_AT_ONCE, Some(move || budget.is_used_up()))
}

struct Loader<'s, 'r> {
    stream: Stream<'s>,
    reading: &'r Reading<'r>,
    rights: Arc<Rights>,
    budget: Arc<Budget>,
    /// Pages that the database may have now.
    pages: u64,
    /// Changes of rows before the open transaction.
    changes: u64,
}

impl Loader<'_, '_> {
    /// Runs all statements.
    fn all(&mut self, connection: &Connection) -> Result<(), SourceError> {
        // Bytes of the window that belong to the statement so far.
        let mut length = 0;
        let mut completion = Completion::default();
        loop {
            let end = match memchr::memchr(b'\n', &self.stream.window()[length..]) {
                Some(end) => length + end + 1,
                None if self.stream.grow()? => continue,
                None => self.stream.window().len(),
            };
            let line = &self.stream.window()[length..end];
            if end == 0 || line.is_empty() {
                break;
            }
            if length == 0 && line.trim_ascii().is_empty() {
                self.stream.consume(end);
                continue;
            }
            if length == 0 && line[0] == b'.' {
                self.command()?;
                self.stream.consume(end);
                continue;
            }
            completion.feed(line);
            length = end;
            if completion.is_complete() {
                self.run(connection, length)?;
                self.stream.consume(length);
                completion = Completion::default();
                length = 0;
            }
        }
        if completion.has_begun() {
            return Err(self.stream.truncated("the dump ends within a statement"));
        }
        Ok(())
    }

    /// Handles a command of sqlite3, which starts with a dot.
    fn command(&mut self) -> Result<(), SourceError> {
        let window = self.stream.window();
        let line = &window[1..memchr::memchr(b'\n', window).unwrap_or(window.len())];
        let name = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let name = String::from_utf8_lossy(&name[..name.len().min(40)]).printable().to_string();
        match name.as_str() {
            "read" | "import" | "restore" | "open" | "load" | "archive" => Err(self.stream.refused(
                0,
                format!("`.{name}` reads rows from another file, which is not part of this dump; {DUMP_ANEW}"),
            )),
            name if HARMLESS_COMMANDS.contains(&name) => Ok(()),
            _ => Err(self.stream.refused(0, format!("`.{name}` is a command of sqlite3 that cannot be followed"))),
        }
    }

    /// Runs the statements in the first bytes of the window.
    fn run(&mut self, connection: &Connection, length: usize) -> Result<(), SourceError> {
        self.budget.grow(length);
        self.bound_pages(connection)?;
        let bytes = &self.stream.window()[..length];
        if bytes.contains(&0) {
            return Err(self
                .stream
                .broken(0, "a statement contains a zero byte, and SQLite would read it up to there"));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            self.stream
                .broken(error.valid_up_to(), "a statement is not UTF-8: SQLite's scripts have no other character set")
        })?;
        // Virtual tables of a dump. No table of the query is one.
        let start = text.trim_start();
        let is = |words: &str| start.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words));
        if is("INSERT INTO sqlite_schema") || is("INSERT INTO sqlite_master") {
            return Ok(());
        }
        let defines = is("CREATE") || is("DROP") || is("ALTER");
        self.rights.counts.store(!defines && self.concerns(text), Ordering::Relaxed);
        let mut statements = Batch::new(connection, text);
        loop {
            let was_open = !connection.is_autocommit();
            let outcome = statements.next().and_then(|statement| {
                let Some(mut statement) = statement else { return Ok(None) };
                let mut rows = statement.raw_query();
                while rows.next()?.is_some() {}
                drop(rows);
                Ok(Some(was_open && connection.is_autocommit() && is_rollback(&statement)))
            });
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(true)) if connection.total_changes() > self.changes => {
                    return Err(self.stream.refused(
                        0,
                        "ROLLBACK takes rows back that were read before, as the database does: the dump ended in an \
                         error, or is a test; dump the database again",
                    ));
                }
                Ok(Some(_)) if !was_open => self.changes = connection.total_changes(),
                Ok(Some(_)) => {}
                Err(error) => return self.failed(&error, text),
            }
        }
    }

    fn failed(&self, error: &rusqlite::Error, text: &str) -> Result<(), SourceError> {
        let detail = match error {
            rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => msg.clone(),
            other => other.to_string(),
        };
        let refusal = match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                self.stream.refused(0, format!("the script needs more time than its length allows; {DUMP_ANEW}"))
            }
            Some(ErrorCode::DiskFull) => {
                self.stream.refused(0, "the script makes more rows than its length allows, or the disk is full")
            }
            _ if detail.starts_with("not authorized") || detail.contains("authorization denied") => {
                self.stream.refused(0, format!("only the database can follow the statement ({detail}); {DUMP_ANEW}"))
            }
            _ => self.stream.broken(0, format!("SQLite refuses the statement: {detail}")),
        };
        if !self.reading.lenient || self.concerns(text) {
            return Err(refusal);
        }
        self.reading.warnings.overrule(refusal.to_string());
        Ok(())
    }

    /// Whether a text names a table of the query.
    fn concerns(&self, text: &str) -> bool {
        let lower = text[..text.floor_char_boundary(1000)].to_ascii_lowercase();
        let is_named = |role: Role| lower.contains(&self.reading.mapping.table(role).to_ascii_lowercase());
        Role::ALL.into_iter().any(|role| !self.reading.mapping.is_left_out(role) && is_named(role))
    }

    /// Bounds the size of the database by the length of the script so far.
    fn bound_pages(&mut self, connection: &Connection) -> Result<(), SourceError> {
        let read = self.stream.offset();
        let allowed = MIN_PAGES + read / BYTES_PER_PAGE;
        if self.pages == 0 || allowed > self.pages + self.pages / 2 {
            self.rights.own.store(true, Ordering::Relaxed);
            let outcome = connection.pragma_update(None, "max_page_count", i64::try_from(allowed).unwrap_or(i64::MAX));
            self.rights.own.store(false, Ordering::Relaxed);
            outcome?;
            self.pages = allowed;
            self.stream.check_memory(usize::try_from(read).unwrap_or(usize::MAX))?;
        }
        Ok(())
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn is_rollback(statement: &Statement<'_>) -> bool {
    statement
        .expanded_sql()
        .is_some_and(|text| text.trim_start().get(..8).is_some_and(|start| start.eq_ignore_ascii_case("ROLLBACK")))
}

/// Finds where a statement ends, as `sqlite3_complete` does, but line by line: a `;` within CREATE TRIGGER ends no
/// statement unless END comes before it.
#[derive(Debug, Default)]
struct Completion {
    state: Progress,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    #[default]
    Nothing,
    Complete,
    Normal,
    Explain,
    Create,
    Trigger,
    /// A `;` within a trigger, and END behind it.
    TriggerStop,
    TriggerEnd,
}

/// What goes on over the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Quoted(u8),
    Comment,
}

impl Completion {
    fn is_complete(&self) -> bool {
        self.open.is_none() && self.state == Progress::Complete
    }

    /// Whether there is more than blanks and comments.
    fn has_begun(&self) -> bool {
        self.open.is_some() || !matches!(self.state, Progress::Nothing | Progress::Complete)
    }

    /// Reads a whole line.
    fn feed(&mut self, line: &[u8]) {
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            match self.open {
                Some(Open::Quoted(quote)) => {
                    let Some(end) = memchr::memchr(quote, rest) else { return };
                    (self.open, at) = (None, at + end + 1);
                    continue;
                }
                Some(Open::Comment) => {
                    let Some(end) = memchr::memmem::find(rest, b"*/") else { return };
                    (self.open, at) = (None, at + end + 2);
                    continue;
                }
                None => {}
            }
            at += 1;
            match rest[0] {
                b';' => self.stop(),
                byte if byte.is_ascii_whitespace() => {}
                b'-' if rest.get(1) == Some(&b'-') => return,
                b'/' if rest.get(1) == Some(&b'*') => {
                    at += 1;
                    self.open = Some(Open::Comment);
                }
                quote @ (b'\'' | b'"' | b'`') => {
                    self.word(b"");
                    self.open = Some(Open::Quoted(quote));
                }
                b'[' => {
                    self.word(b"");
                    self.open = Some(Open::Quoted(b']'));
                }
                byte if is_word(byte) => {
                    let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                    at += length - 1;
                    self.word(&rest[..length]);
                }
                _ => self.word(b""),
            }
        }
    }

    fn stop(&mut self) {
        use Progress::{Complete, Trigger, TriggerStop};
        self.state = if matches!(self.state, Trigger | TriggerStop) { TriggerStop } else { Complete };
    }

    fn word(&mut self, word: &[u8]) {
        use Progress::{Complete, Create, Explain, Normal, Nothing, Trigger, TriggerEnd, TriggerStop};
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        self.state = match self.state {
            Nothing | Complete if is("EXPLAIN") => Explain,
            Nothing | Complete | Explain if is("CREATE") => Create,
            Create if is("TEMP") || is("TEMPORARY") => Create,
            Create if is("TRIGGER") => Trigger,
            TriggerStop if is("END") => TriggerEnd,
            Trigger | TriggerStop | TriggerEnd => Trigger,
            Nothing | Complete | Normal | Explain | Create => Normal,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::Mapping;
    use super::super::stream::ReadMeter;
    use super::super::warnings::Warnings;
    use super::*;

    fn loaded(script: &str) -> Result<Connection, SourceError> {
        let mut quiet = |_: super::super::Progress| {};
        let stream = Stream::new(Box::new(script.as_bytes()), ReadMeter::default(), &mut quiet);
        let reading =
            Reading { mapping: &Mapping::default(), warnings: &Warnings::default(), lenient: false, asked: None };
        load(stream, &reading)
    }

    #[test]
    fn statements_end_as_sqlite_ends_them() {
        for (script, complete) in [
            ("SELECT 1;\n", true),
            ("SELECT ';\n", false),
            ("SELECT 1; -- x\n", true),
            ("SELECT [a;\n", false),
            ("/* ; \n ; */ ;\n", true),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;\n", false),
            ("CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END;\n", true),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT ';END;';\n END;\n", true),
            ("CREATE TABLE trigger_t (a);\n", true),
        ] {
            let mut completion = Completion::default();
            script.split_inclusive('\n').for_each(|line| completion.feed(line.as_bytes()));
            assert_eq!(completion.is_complete(), complete, "{script}");
        }
    }

    #[test]
    fn scripts_reach_nothing_else_and_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT i FROM n;";
        let squares = format!(
            "INSERT INTO t VALUES (1){};\n{}",
            ",(1)".repeat(2000),
            "INSERT INTO t SELECT a.a FROM t a, t b, t c, t d;"
        );
        for (script, reason) in [
            (format!("ATTACH '{}' AS x;", other.display()), "only the database can follow"),
            (format!("VACUUM INTO '{}';", other.display()), "only the database can follow"),
            ("SELECT load_extension('x');".into(), "only the database can follow"),
            (numbers.into(), "only the database can follow"),
            (squares, "than its length allows"),
            ("INSERT INTO t VALUES (zeroblob(60000000));".into(), "only the database can follow"),
            ("INSERT INTO faces VALUES (random());".into(), "only the database can follow"),
            ("PRAGMA max_page_count = 4000000000; PRAGMA foreign_keys = ON; BEGIN;".into(), "no COMMIT"),
            ("INSERT INTO t VALUES (1\n".into(), "within a statement"),
            ("BEGIN; INSERT INTO t VALUES (1); ROLLBACK;".into(), "ROLLBACK takes rows back"),
            ("INSERT INTO t VALUES (1,2);".into(), "SQLite refuses the statement"),
        ] {
            let error =
                loaded(&format!("CREATE TABLE t (a);\nCREATE TABLE faces (a);\n{script}\n")).unwrap_err().to_string();
            assert!(error.contains(reason), "{script}: {error}");
        }
        assert!(!other.exists());
    }

    #[test]
    fn sqlite_follows_every_statement() {
        let script = "CREATE TABLE t (a UNIQUE, b);\nINSERT INTO t VALUES (1, replace('x\\ny', '\\n', char(10)));\n\
            INSERT OR REPLACE INTO t VALUES (1, unistr('\\u0041'));\nUPDATE t SET b = b || 'b';\n.timer on\n";
        let connection = loaded(script).unwrap();
        let text: String = connection.query_row("SELECT b FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(text, "Ab");
    }
}
