"""SQLite: what its databases may contain, how its tools write them, and what it answers."""

import os
import shutil
import sqlite3

import databases
import processes
import values
from databases import Ids, Table, query


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


MAGIC = b"SQLite format 3\0"
SCRIPTS = {".dump", ".dump --preserve-rowids", ".dump --newlines", "iterdump", ".dump TABLES"}


class Sqlite:
    name = "sqlite"
    nul_in_texts = False
    decoys = True
    odd_names = [*databases.ODD_NAMES, "primary key", "é", "[x]", "`y`"]

    # How the database is written. Each pair of values occurs together.
    FACTORS = {
        "kind": [
            ".dump",
            ".dump",
            ".dump --preserve-rowids",
            ".dump --newlines",
            "iterdump",
            "file",
            "wal file",
            ".dump TABLES",
            "vacuumed",
            ".mode insert",
        ],
        "page": [512, 4096, 65536],
        "encoding": ["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"],
        "vacuum": ["0", "1", "2"],
        "pack": ["", "", "gz", "xz", "bz2"],
    }

    @staticmethod
    def possible(options):
        # A file is packed as a whole; its log is another file.
        return not (options["kind"] == "wal file" and options["pack"])

    def __init__(self, folder):
        self.folder = folder

    def stop(self):
        pass

    # What a database may contain.

    def charset(self, rng):
        # The tools end a text at a NUL; the file has it.
        return "nul" if rng.random() < 0.1 else "utf8mb4"

    def ids(self, rng, size, pool):
        family = rng.choice(["number", "number", "number", "real", "text", "text", "collation", "binary", "mixed"])
        count = size + 2
        if family in ("number", "real"):
            types = [
                ("INTEGER", "number"),
                ("INT", "number"),
                ("BIGINT", "number"),
                ("NUMERIC(10,2)", "number"),
                ("", "number"),
            ]
            if family == "real":
                types = [("REAL", "number"), ("FLOAT", "number"), ("INTEGER", "number"), ("DOUBLE PRECISION", "number")]
            types = [rng.choice(types)] if rng.random() < 0.5 else types
            return Ids(
                types, values.numbers(rng, count, large=[4294967296, 9007199254740993 if family == "number" else 65536])
            )
        if family == "binary":
            return Ids(
                [("BLOB", "binary"), ("", "binary")],
                list(dict.fromkeys(rng.randbytes(rng.randint(1, 3)) for _ in range(count * 3)))[:count],
            )
        if family == "mixed":
            numbers = values.numbers(rng, count, 0)
            return Ids([("TEXT", "exact"), ("VARCHAR(9)", "exact")], [str(number) for number in numbers])
        texts = values.text_ids(rng, count, pool)
        if family == "collation":
            texts = list({text.lower().rstrip(" "): text for text in texts}.values())
            found = Ids([("TEXT COLLATE NOCASE", "exact")], texts, "collation")
            found.vary = lambda rng, text: rng.choice(
                [text.upper() if text.isascii() else text, text.lower() if text.isascii() else text, text]
            )
            return found
        return Ids([("TEXT", "exact"), ("VARCHAR(40)", "exact"), ("CHARACTER(20)", "exact")], texts)

    def times(self, rng, count):
        type = rng.choice(["TEXT", "DATETIME", "TIMESTAMP", "VARCHAR(30)", "INTEGER", "REAL", "DATE", ""])
        if type in ("INTEGER", "REAL"):
            return (type, "number"), [rng.randrange(1, 1_500_000_000, 7) for _ in range(count)]
        return (type, "exact"), values.times(rng, count, fraction=0)

    def text_type(self, rng, charset):
        return rng.choice(["TEXT", "VARCHAR(1000)", "CLOB", "TEXT NULL"])

    def extra(self, rng, pool, table):
        text = lambda: values.text(rng, pool)
        or_null = lambda make: lambda: None if rng.random() < 0.2 else make()
        return rng.choice(
            [
                ("BLOB", or_null(lambda: rng.randbytes(rng.randrange(9))), "", False),
                ("TEXT", text, "DEFAULT 'it''s; (x)' NOT NULL", False),
                ("REAL", or_null(lambda: rng.choice([1.5, -2e300, 0.1, 1e-9, float("inf")])), "", False),
                ("", text, "", False),
                ("INTEGER", or_null(lambda: -5), "CHECK (1 > 0)", False),
                ("TIMESTAMP", lambda: "2016-01-01 10:00:00", "DEFAULT CURRENT_TIMESTAMP", False),
                ("BOOLEAN", or_null(lambda: 1), "DEFAULT TRUE", False),
                ("TEXT", None, "GENERATED ALWAYS AS ('a,b); --') VIRTUAL", True),
            ]
        )

    def other_tables(self, rng, pool, prefix="a_"):
        names = rng.sample(["faces_old", 'photos; "x"', "labels'", "photo", "[faces]"], 2)
        return [databases.other_table(rng, pool, prefix + name, ("INTEGER", "TEXT")) for name in names]

    def decorate(self, rng, database):
        faces, photos, labels = (database.roles[role] for role in ("faces", "photos", "labels"))
        if rng.random() < 0.15:
            databases.rename(database)
            databases.map_tables(database)
        for table in (faces, photos, labels):
            if "key" in table.constraints and rng.random() < 0.1:
                table.options = "WITHOUT ROWID"
        database.after = rng.sample(
            [
                f"CREATE VIEW labels_view AS SELECT id || ';' AS n FROM {quoted(labels.name)}",
                f"CREATE TRIGGER grow AFTER INSERT ON {quoted(faces.name)} BEGIN DELETE FROM {quoted(labels.name)}; "
                "SELECT CASE WHEN 1 THEN 2 END; END",
                f"CREATE INDEX an_index ON {quoted(photos.name)} (id) WHERE id <> 'it''s;'",
                "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)",
                "INSERT INTO counted VALUES (7)",
            ],
            rng.randint(0, 3),
        )
        if "INSERT INTO counted VALUES (7)" in database.after:
            database.after = [each for each in database.after if "counted" not in each] + [
                "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)",
                "INSERT INTO counted VALUES (7)",
            ]

    # The database as a file.

    def path(self, name):
        return os.path.join(self.folder, name + ".db")

    def create(self, database, name):
        database.statements = []
        for table in database.items:
            parts = []
            role = next((role for role, known in database.roles.items() if known is table), None)
            for column in table.columns:
                key = role and "key" in table.constraints and column is database.columns[role, "id"]
                parts.append(
                    f"{quoted(column.name)} {column.type} {column.rest} {'PRIMARY KEY NOT NULL' if key else ''}"
                )
            for other in table.constraints:
                if role and other != "key":
                    reference = quoted(database.columns["faces", other[:-1] + "_id"].name)
                    parts.append(
                        f"FOREIGN KEY ({reference}) REFERENCES {quoted(database.roles[other].name)} "
                        f"({quoted(database.columns[other, 'id'].name)})"
                    )
            database.statements.append((f"CREATE TABLE {quoted(table.name)} ({', '.join(parts)}) {table.options}", []))
            columns = [column for column in table.columns if not column.generated]
            for row in table.rows:
                row = [value for column, value in zip(table.columns, row) if not column.generated]
                names, marks = ", ".join(quoted(column.name) for column in columns), ", ".join("?" * len(columns))
                database.statements.append((f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({marks})", row))
        database.statements += [(statement, []) for statement in database.after]
        self._write(database, self.path(name), [])

    @staticmethod
    def _write(database, path, pragmas):
        connection = sqlite3.connect(path)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        for statement, row in database.statements:
            try:
                connection.execute(statement, row)
            except sqlite3.Error as error:
                raise RuntimeError(f"{error}: {statement}") from error
        connection.commit()
        return connection

    def drop(self, name):
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path(name) + suffix):
                os.remove(self.path(name) + suffix)

    def query(self, database, as_text=None):
        quote = lambda named: quoted(named.name if isinstance(named, Table) else named)

        def hexadecimal(text, column):
            value = f"lower(hex({text}))" if column.compare == "binary" else text
            return f"CASE WHEN {text} IS NULL THEN 'NULL' ELSE hex(CAST(CAST({value} AS TEXT) AS BLOB)) END"

        return query(database, quote, as_text or hexadecimal, False)

    @staticmethod
    def parse(rows):
        return [
            [None if field == "NULL" else bytes.fromhex(field).decode(errors="replace") for field in row]
            for row in rows
        ]

    def answer(self, database, name):
        connection = sqlite3.connect(self.path(name))
        try:
            return self.parse(connection.execute(self.query(database)).fetchall())
        finally:
            connection.close()

    def reloads(self, options):
        """Whether the dump with these options is a script that loads into an empty database, or a small file."""
        return options["kind"] in SCRIPTS or (options["kind"] == "file" and options["page"] < 65536)

    def prepare(self, name):
        """Scripts are loaded into memory."""

    def load(self, database, name, script):
        """Loads a script into an empty database up to the first error, and returns the answer. An open transaction at
        the end is an error: its rows would be lost. A file must pass SQLite's check."""
        with open(script, "rb") as file:
            if file.read(16) == MAGIC:
                return self._check(database, script)
        output = processes.run(
            [
                "sqlite3",
                "-batch",
                "-bail",
                "-init",
                "/dev/null",
                "-list",
                "-separator",
                "\t",
                ":memory:",
                ".output /dev/null",
                f".read {script}",
                "BEGIN",
                ".output stdout",
                ".mode list",
                '.separator "\\t" "\\n"',
                ".headers off",
                self.query(database),
            ],
            self.folder,
        )
        return self.parse(line.split("\t") for line in output.decode().splitlines())

    def _check(self, database, path):
        command = ["sqlite3", "-batch", "-bail", "-init", "/dev/null", "-list", "-separator", "\t"]
        # A file that says that it has a log needs one that can be written.
        output = processes.run(
            [*command, f"file:{path}?immutable=1", "PRAGMA quick_check", self.query(database)], self.folder
        )
        check, _, rows = output.decode().partition("\n")
        if check != "ok":
            raise processes.ToolError(check)
        return self.parse(line.split("\t") for line in rows.splitlines())

    # Dumps.

    EXPORTS = [".mode csv"]

    def export(self, database, name, kind):
        """Returns the answer as a table of candidates."""
        select = self.query(
            database,
            lambda text, column: f"lower(hex({text}))" if column.compare == "binary" else f"CAST({text} AS TEXT)",
        )
        os.chmod(self.path(name), 0o644)
        return processes.run(
            [
                "sqlite3",
                "-batch",
                "-bail",
                "-init",
                "/dev/null",
                "-readonly",
                self.path(name),
                kind,
                ".headers on",
                select,
            ],
            self.folder,
        )

    def dump(self, database, name, options):
        kind, path = options["kind"], self.path(name) + ".copy"
        if database.charset == "nul" and kind not in ("file", "wal file", "vacuumed"):
            kind = "file"
        encoding = options["encoding"]
        pragmas = [f"page_size = {options['page']}", f"auto_vacuum = {options['vacuum']}", f"encoding = '{encoding}'"]
        if kind == "wal file":
            pragmas.append("journal_mode = WAL")
        connection = self._write(database, path, pragmas)
        try:
            if kind == "wal file":
                # Copied while it is open: the rows are in the log.
                folder = path + ".folder"
                os.makedirs(folder, exist_ok=True)
                for suffix in ("", "-wal"):
                    shutil.copy(path + suffix, os.path.join(folder, "source.db" + suffix))
                return os.path.join(folder, "source.db"), set()
            # Python's own does not quote a quote in a name, and writes infinity in a way that SQLite does not read.
            infinite = any(value == float("inf") for table in database.items for row in table.rows for value in row)
            if (
                kind == "iterdump"
                and not infinite
                and not set("\"'") & set("".join(table.name for table in database.items))
            ):
                return ("\n".join(connection.iterdump()) + "\n").encode(), set()
            if kind == "vacuumed":
                connection.execute("DELETE FROM " + quoted(database.roles["labels"].name) + " WHERE 0")
                connection.commit()
                connection.execute("VACUUM")
            if kind in ("file", "vacuumed"):
                with open(path, "rb") as file:
                    return file.read(), set()
            os.chmod(path, 0o644)
            return self._script(database, path, kind)
        finally:
            connection.close()
            os.remove(path)

    @staticmethod
    def _script(database, path, kind):
        tables = [table.name for table in database.roles.values()]
        commands, allowed = [".dump" if kind == "iterdump" else kind], set()
        if kind == ".dump TABLES":
            # The names are patterns of LIKE.
            commands = [".dump " + " ".join('"' + table.replace('"', '\\"') + '"' for table in tables)]
        elif kind == ".mode insert":
            commands = []
            for table in tables:
                commands += [f".mode insert {quoted(table)}", f"SELECT * FROM {quoted(table)}"]
            allowed = {"no columns"}
        command = ["sqlite3", "-batch", "-bail", "-init", "/dev/null", "-readonly", path]
        return processes.run([*command, *commands], os.path.dirname(path)), allowed
