"""MariaDB: what its databases may contain, how mariadb-dump writes them, and what the server answers."""

import os
import re
import subprocess
import threading
import unicodedata
import uuid

import databases
import processes
import values
from databases import Ids, Table, query


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, int):
        return str(int(value))
    escaped = str(value).replace("\\", "\\\\").replace("'", "''").replace("\0", "\\0")
    return f"'{escaped}'"


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


def folded(text):
    """Texts that fold alike may be equal to the server's collations."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.casefold().rstrip(" ")


class Session:
    """A long-lived client for administration and for answers."""

    def __init__(self, command, folder):
        command = [
            *command,
            "--batch",
            "--skip-column-names",
            "--force",
            "--unbuffered",
            "--default-character-set=utf8mb4",
        ]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": folder},
            **processes.other_user(),
        )

    def ask(self, statements):
        """Runs statements and returns the lines of output. A `ToolError` has the first error."""
        self.process.stdin.write(statements.encode() + b";\nSELECT 'end of the answer';\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) != b"end of the answer\n":
            if not line:
                raise RuntimeError("the session with MariaDB has ended")
            lines.append(line.decode(errors="replace").rstrip("\n"))
        errors = [line for line in lines if line.startswith("ERROR ")]
        if errors:
            raise processes.ToolError(errors[0])
        return lines

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class MariaDb:
    name = "mariadb"
    nul_in_texts = True
    decoys = True
    odd_names = [*databases.ODD_NAMES, "index", "a`b", "#", "fulltext", "period"]

    # Options of mariadb-dump, of which each pair of values occurs together.
    FACTORS = {
        "compact": [
            "",
            "",
            "",
            "--compact",
            "--skip-opt",
            "--skip-comments",
            "--skip-opt --skip-comments --create-options",
        ],
        "extended": ["", "", "--skip-extended-insert", "--extended-insert --net-buffer-length=4096"],
        "complete": ["", "--complete-insert"],
        "hex": ["", "--hex-blob"],
        "insert": ["", "", "--replace", "--insert-ignore"],
        "names": ["", "--skip-quote-names"],
        "create": [
            "",
            "",
            "",
            "--no-create-info",
            "--databases",
            "--skip-add-drop-table",
            "--add-drop-database --databases",
        ],
        "zone": ["", "--skip-tz-utc"],
        "commit": ["", "--no-autocommit", "--single-transaction", "--skip-add-locks", "--skip-disable-keys"],
        "compatible": ["", "", "", "--compatible=ansi", "--compatible=no_table_options", "--compatible=no_key_options"],
        "routines": ["", "--routines --events", "--skip-triggers"],
        "charset": ["", "--skip-set-charset", "--default-character-set=utf8mb4"],
        "order": ["", "--order-by-primary"],
        "pack": ["", "", "gz", "xz", "bz2"],
    }

    @staticmethod
    def possible(options):
        # These name no character set; the tool then writes texts in the one of the client.
        # Without SET SQL_MODE, the server itself does not take names in double quotes.
        ansi = options["compatible"] == "--compatible=ansi" and options["compact"] == "--compact"
        return not ansi and not (options["create"] == "--no-create-info" and options["compatible"])

    def __init__(self, folder):
        self.folder = folder
        data = os.path.join(folder, "mariadb")
        self.socket = os.path.join(folder, "mariadb.sock")
        processes.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            folder,
        )
        self.client = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root"]
        self.server = processes.Server(
            [
                "/usr/sbin/mariadbd",
                "--no-defaults",
                f"--datadir={data}",
                f"--socket={self.socket}",
                "--skip-networking",
                f"--pid-file={data}/pid",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-flush-method=nosync",
                "--innodb-doublewrite=0",
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M",
                "--skip-log-bin",
                "--character-set-server=utf8mb4",
                "--collation-server=utf8mb4_general_ci",
                "--skip-name-resolve",
                "--default-time-zone=+00:00",
            ],
            folder,
            "mariadb.log",
            lambda: self._is_ready(),
        )
        self.local = threading.local()
        self.sessions = []

    def _is_ready(self):
        try:
            processes.run([*self.client, "-e", "SELECT 1"], self.folder)
        except processes.ToolError:
            return False
        return True

    def stop(self):
        for session in self.sessions:
            session.stop()
        self.server.stop()

    def ask(self, statements):
        """Each thread has a session of its own."""
        if not hasattr(self.local, "session"):
            self.local.session = Session(self.client, self.folder)
            self.sessions.append(self.local.session)
        return self.local.session.ask(statements)

    # What a database may contain.

    def charset(self, rng):
        return rng.choice(["utf8mb4"] * 8 + list(values.REPERTOIRES))

    def ids(self, rng, size, pool):
        family = rng.choice(["number", "number", "number", "zerofill", "text", "collation", "padded", "binary", "uuid"])
        count = size + 2
        if family in ("number", "zerofill"):
            types = [
                ("int(11)", "number"),
                ("bigint(20)", "number"),
                ("decimal(12,2)", "number"),
                ("mediumint(9)", "number"),
            ]
            large = [8388607]
            low = -3
            if family == "zerofill":
                types = [
                    ("int(8) unsigned zerofill", "number"),
                    ("int(10) unsigned", "number"),
                    ("bigint(12) unsigned zerofill", "number"),
                ]
                low = 1
            types = [rng.choice(types)] if rng.random() < 0.5 else types
            # A 0 in an AUTO_INCREMENT column is another matter; there is none here.
            return Ids(
                types, values.numbers(rng, count, low, large=large), "zerofill ids" if family == "zerofill" else ""
            )
        if family == "binary":
            return Ids(
                [("varbinary(9)", "binary")],
                list(dict.fromkeys(rng.randbytes(rng.randint(1, 3)) for _ in range(count * 3)))[:count],
            )
        if family == "uuid":
            return Ids([("uuid", "exact")], [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)])
        # Blanks at the end do not count in any of these collations.
        alike = str.rstrip if family == "text" else folded
        texts = list({alike(text): text for text in values.text_ids(rng, count * 2, pool)}.values())[:count]
        collation = "utf8mb4_general_ci" if family == "collation" else "utf8mb4_bin"
        rest = f"CHARACTER SET utf8mb4 COLLATE {collation}"
        if family == "padded":
            return Ids(
                [(f"char(12) {rest}", "exact"), (f"varchar(40) {rest}", "exact")],
                [text[:12].rstrip(" ") for text in texts],
            )
        found = Ids([(f"varchar(40) {rest}", "exact")], texts, "collation" if family == "collation" else "")
        found.vary = lambda rng, text: text.rstrip(" ") + rng.choice(["", " "])
        if family == "collation":
            found.vary = lambda rng, text: rng.choice([text.upper(), text.lower(), text + " ", text])
        return found

    def times(self, rng, count):
        type = rng.choice(
            [
                "datetime",
                "datetime",
                "datetime(6)",
                "timestamp NULL",
                "timestamp(3) NULL",
                "date",
                "bigint(20)",
                "decimal(20,3)",
                "varchar(30)",
            ]
        )
        if type in ("bigint(20)", "decimal(20,3)"):
            return (type, "number"), [rng.randrange(-5, 1_500_000_000, 7) for _ in range(count)]
        found = values.times(rng, count, fraction=0 if type == "varchar(30)" else 6)
        if type.startswith("datetime"):
            found = [
                rng.choice(["0000-00-00 00:00:00", "9999-12-31 00:00:00"]) if rng.random() < 0.05 else time
                for time in found
            ]
        return (type, "exact"), found

    def text_type(self, rng, charset):
        found = ["varchar(1000)", "text", "mediumtext", "varchar(700) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"]
        return rng.choice(found + ["varbinary(3000)"] if charset == "utf8mb4" else found)

    def extra(self, rng, pool, table):
        text = lambda: values.text(rng, pool)
        or_null = lambda make: lambda: None if rng.random() < 0.2 else make()
        return rng.choice(
            [
                ("blob", or_null(lambda: rng.randbytes(rng.randrange(9))), "", False),
                ("varbinary(20)", or_null(lambda: rng.choice([b"'", b"\\'", b"a\\", b"\0", b"\x1a;"])), "", False),
                ("varchar(1000)", text, "DEFAULT 'it''s; (x)' COMMENT 'it''s \\'x\\'; (y)'", False),
                ("enum('a','b),','c;''')", or_null(lambda: rng.choice(["a", "b),", "c;'"])), "DEFAULT 'a'", False),
                ("set('a','b')", or_null(lambda: "a,b"), "", False),
                ("double", or_null(lambda: rng.choice(["1.5", "-2e300", "0.1"])), "", False),
                ("bit(9)", or_null(lambda: 5), "", False),
                ("time", or_null(lambda: "-12:00:01"), "", False),
                ("int(11)", or_null(lambda: 7), "INVISIBLE DEFAULT 3", False),
                ("year(4)", or_null(lambda: 2016), "", False),
                (
                    "timestamp",
                    lambda: "2016-01-01 10:00:00",
                    "DEFAULT current_timestamp() ON UPDATE current_timestamp()",
                    False,
                ),
                ("int(11)", None, "GENERATED ALWAYS AS (1 + 1) VIRTUAL", True),
                ("varchar(20)", None, "GENERATED ALWAYS AS ('a,b); -- ') STORED", True),
                ("longtext", or_null(lambda: '{"a;": "\'"}'), "CHECK (1 > 0)", False),
            ]
        )

    def other_tables(self, rng, pool, prefix="a_"):
        names = rng.sample(["faces_old", "photos; `x`", "labels'", "photo", 'faces"'], 2)
        return [databases.other_table(rng, pool, prefix + name, ("int(11)", "text")) for name in names]

    def decorate(self, rng, database):
        faces, photos, labels = (database.roles[role] for role in ("faces", "photos", "labels"))
        if rng.random() < 0.15:
            databases.rename(database)
            databases.map_tables(database)
        # The server partitions by whole numbers only, and not where rows are referred to.
        whole = "int" in database.columns["faces", "id"].type
        if whole and "references" not in database.traits and rng.random() < 0.3:
            faces.options = "PARTITION BY HASH (`id`) PARTITIONS 2"
            database.traits.add("partitions")
        elif rng.random() < 0.05:
            photos.options = "WITH SYSTEM VERSIONING"
        database.after = rng.sample(
            [
                f"CREATE VIEW `labels_view` AS SELECT concat(`id`, ';') AS `n` FROM {quoted(labels.name)}",
                f"CREATE TRIGGER `grow` AFTER INSERT ON {quoted(faces.name)} FOR EACH ROW "
                f"DELETE FROM {quoted(labels.name)}",
                f"CREATE TRIGGER `lower` BEFORE INSERT ON {quoted(labels.name)} FOR EACH ROW "
                "BEGIN /* it's; */ SET NEW.`id` = NULL; END",
                "CREATE PROCEDURE `one`() BEGIN SELECT 'a;b\\''; INSERT INTO faces VALUES (1); END",
                f"CREATE INDEX `an_index` ON {quoted(photos.name)} (`id`)",
                "CREATE SEQUENCE `counter` START WITH 5",
                f"ALTER TABLE {quoted(labels.name)} COMMENT 'it''s; -- INSERT INTO faces VALUES (1)'",
            ],
            rng.randint(0, 3),
        )

    # The database in the server.

    def insert(self, table, row):
        columns = [column for column in table.columns if not column.generated]
        row = [value for column, value in zip(table.columns, row) if not column.generated]
        names = ", ".join(quoted(column.name) for column in columns)
        return f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({', '.join(map(literal, row))})"

    def create(self, database, name):
        statements = [
            f"CREATE DATABASE {name}",
            f"USE {name}",
            "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0",
        ]
        for table in database.items:
            parts = [f"{quoted(column.name)} {column.type} {column.rest}" for column in table.columns]
            role = next((role for role, known in database.roles.items() if known is table), None)
            if role:
                key = lambda role, column="id": quoted(database.columns[role, column].name)
                for constraint in table.constraints:
                    if constraint == "key":
                        parts.append(f"PRIMARY KEY ({key(role)})")
                    else:
                        parts.append(
                            f"FOREIGN KEY ({key('faces', constraint[:-1] + '_id')}) REFERENCES "
                            f"{quoted(database.roles[constraint].name)} ({key(constraint)})"
                        )
            statements.append(f"CREATE TABLE {quoted(table.name)} ({', '.join(parts)}) {table.options}")
            statements += [self.insert(table, row) for row in table.rows]
        statements += database.after
        self.run_script(";;\n".join(["DELIMITER ;;\n" + statements[0], *statements[1:], ""]).encode(), [])

    def run_script(self, script, arguments):
        """The client stops at the first error."""
        processes.run([*self.client, "--default-character-set=utf8mb4", *arguments], self.folder, input=script)

    def drop(self, name):
        self.ask(f"DROP DATABASE IF EXISTS {name}")

    def query(self, database, as_text=None):
        quote = lambda named: quoted(named.name if isinstance(named, Table) else named)

        def hexadecimal(text, column):
            return f"HEX(LOWER(HEX({text})))" if column.compare == "binary" else f"HEX(CONVERT({text} USING utf8mb4))"

        return query(database, quote, as_text or hexadecimal, False)

    def answer(self, database, name):
        lines = self.ask(f"USE {name};\nSET NAMES utf8mb4, sql_mode = ''; {self.query(database)}")
        decode = lambda field: None if field == "NULL" else bytes.fromhex(field).decode(errors="replace")
        return [[decode(field) for field in line.split("\t")] for line in lines]

    def reloads(self, options):
        """Whether the dump with these options is a script that loads into an empty database."""
        return options["create"] in ("", "--skip-add-drop-table")

    def prepare(self, name):
        """Each load makes its database."""

    def load(self, database, name, script):
        """Loads a script into an empty database up to the first error, and returns the answer. Rows of an open
        transaction are lost when the client ends."""
        self.ask(f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}")
        with open(script, "rb") as file:
            # Without these checks, an INSERT IGNORE with a doubled key into an empty table loses all rows silently: a
            # fault of the server (bulk insert of 10.6 and later), not an answer.
            self.run_script(file.read().replace(b"UNIQUE_CHECKS=0", b"UNIQUE_CHECKS=1"), [name])
        return self.answer(database, name)

    # Dumps.

    EXPORTS = ["--batch"]

    def export(self, database, name, kind):
        """Returns the answer as a table of candidates. The client writes NULL as a word."""
        texts = lambda text, column: (
            f"LOWER(HEX({text}))" if column.compare == "binary" else f"CONVERT({text} USING utf8mb4)"
        )
        select = self.query(database, lambda text, column: f"COALESCE({texts(text, column)}, '')")
        return processes.run(
            [*self.client, "--default-character-set=utf8mb4", kind, name], self.folder, input=select.encode()
        )

    @staticmethod
    def plain_names(database):
        names = [name for table in database.items for name in (table.name, *(column.name for column in table.columns))]
        return all(re.fullmatch("[a-z_0-9]+", name) and name not in MariaDb.odd_names for name in names)

    def dump(self, database, name, options):
        command = ["mariadb-dump", "--no-defaults", f"--socket={self.socket}", "--user=root"]
        allowed = {"charset"} & database.traits
        charset = options["charset"]
        if database.charset != "utf8mb4":
            # Several options omit SET NAMES; without it nobody can read the dump.
            charset = f"--default-character-set={database.charset} --set-charset"
            options = {**options, "compact": options["compact"].replace("--compact", "--skip-comments")}
        for option in (
            "compact",
            "extended",
            "complete",
            "hex",
            "insert",
            "names",
            "zone",
            "commit",
            "compatible",
            "routines",
            "order",
        ):
            # The tool itself fails on names that need quotes.
            if option != "names" or self.plain_names(database):
                command += options[option].split()
        command += charset.split() if charset else ["--default-character-set=utf8mb4"]
        create = options["create"].split()
        if create == ["--no-create-info"] and not options["complete"]:
            allowed.add("no columns")
        if create == ["--no-create-info"]:
            # Ids of varbinary columns are bytes, which nothing says without the definitions.
            allowed |= {"no types", "data only", "nothing joins", "charset", "binary"}
        if "--compatible" in options["compatible"] or options["compact"] == "--skip-opt":
            # Tables without their options have the collation of whichever server loads them.
            allowed.add("collation")
        if charset == "--skip-set-charset":
            command.append("--default-character-set=utf8mb4")
        return processes.run([*command, *create, name], self.folder), allowed
