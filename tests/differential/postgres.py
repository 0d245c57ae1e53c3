"""PostgreSQL: what its databases may contain, how pg_dump writes them, and what the server answers."""

import glob
import json
import os

import databases
import processes
import values
from databases import ALIASES, Column, Ids, Table, query


def binaries():
    """The folder of the newest installed server."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    if not found:
        raise RuntimeError("PostgreSQL's server is missing: run deploy/setup.sh --tests")
    return os.path.dirname(max(found, key=lambda path: int(path.split("/")[4])))


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return "'" + str(value).replace("'", "''") + "'"


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


NOT_EMPTY = "the last script left objects"
# Objects of the server itself have smaller numbers.
EMPTY = (
    "DO $$ BEGIN IF "
    + " OR ".join(
        f"EXISTS (SELECT FROM {catalog} WHERE oid >= 16384)"
        for catalog in ("pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_collation", "pg_extension")
    )
    + f" THEN RAISE EXCEPTION '{NOT_EMPTY}'; END IF; END $$"
)


class Postgres:
    name = "postgres"
    nul_in_texts = False
    decoys = True
    odd_names = [*databases.ODD_NAMES, "exclude", "ID", "Updated_At", "$$", "id "]
    ENCODINGS = {"cp932": "SJIS", "gbk": "GBK", "big5": "BIG5", "latin1": "LATIN1", "utf8mb4": "UTF8"}
    ZONES = ["UTC", "Asia/Tokyo", "America/St_Johns", "Europe/Amsterdam"]

    # Options of pg_dump, of which each pair of values occurs together.
    FACTORS = {
        "rows": [
            "copy",
            "copy",
            "--inserts",
            "--column-inserts",
            "--rows-per-insert=1",
            "--rows-per-insert=3",
            "--rows-per-insert=100",
        ],
        "sections": ["all", "all", "all", "--data-only", "custom", "--section"],
        "clean": ["", "--clean", "--clean --if-exists", "--create"],
        "dollar": ["", "--disable-dollar-quoting"],
        "quote": ["", "--quote-all-identifiers"],
        "conflict": ["", "--on-conflict-do-nothing"],
        "owner": ["", "--no-owner --no-acl", "--use-set-session-authorization"],
        "comments": ["", "--no-comments", "--verbose"],
        "triggers": ["", "--disable-triggers"],
        "partition": ["", "--load-via-partition-root"],
        "pack": ["", "", "gz", "xz", "bz2"],
    }

    @staticmethod
    def possible(options):
        return (
            not (options["conflict"] and options["rows"] == "copy")
            and not (options["triggers"] and options["sections"] != "--data-only")
            and not (options["clean"] and options["sections"] == "--data-only")
        )

    def __init__(self, folder):
        self.folder = folder
        self.bin = binaries()
        data = os.path.join(folder, "postgres")
        processes.run(
            [
                f"{self.bin}/initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            folder,
        )
        self.server = processes.Server(
            [
                f"{self.bin}/postgres",
                "-D",
                data,
                "-k",
                folder,
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "full_page_writes=off",
                "-c",
                "synchronous_commit=off",
                "-c",
                "autovacuum=off",
                "-c",
                "shared_buffers=32MB",
                "-c",
                "max_connections=20",
            ],
            folder,
            "postgres.log",
            lambda: self._is_ready(),
        )

    def _is_ready(self):
        try:
            self.psql("postgres", "-c", "SELECT 1")
        except processes.ToolError:
            return False
        return True

    def stop(self):
        self.server.stop()

    def psql(self, database, *arguments, zone="UTC"):
        command = [
            f"{self.bin}/psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            self.folder,
            "-U",
            "postgres",
            "-d",
            database,
        ]
        return processes.run(
            [*command, *arguments], self.folder, environment={"PGTZ": zone, "PGCLIENTENCODING": "UTF8"}
        )

    # What a database may contain.

    def charset(self, rng):
        return rng.choice(["utf8mb4"] * 8 + list(values.REPERTOIRES))

    def ids(self, rng, size, pool):
        family = rng.choice(
            ["number"] * 6 + ["large", "text", "text", "padded", "padded", "uuid", "citext", "collation"]
        )
        count = size + 2
        if family == "number":
            types = [
                ("integer", "number"),
                ("bigint", "number"),
                ("numeric", "number"),
                ("numeric(12,2)", "number"),
                ("numeric(10,1)", "number"),
            ]
            types = [rng.choice(types)] if rng.random() < 0.5 else types
            return Ids(types, values.numbers(rng, count, large=[214748364, 100000000]))
        if family == "large":
            types = [("numeric", "number"), ("numeric(40,0)", "number"), ("numeric(50,2)", "number")]
            return Ids(types, [10 ** rng.randrange(18, 30) + number for number in values.numbers(rng, count)])
        if family == "uuid":
            return Ids([("uuid", "exact")], [f"{rng.getrandbits(128):032x}" for _ in range(count)])
        texts = values.text_ids(rng, count, pool)
        if family in ("citext", "collation"):
            type = "public.citext" if family == "citext" else "text COLLATE public.any_case"
            texts = list({text.casefold(): text for text in texts if text.isascii()}.values()) + ["n98", "n99"]
            found = Ids([(type, "exact")], texts, "collation")
            found.vary = lambda rng, text: rng.choice([text.upper(), text.lower(), text])
            found.needs = [
                "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public",
                "CREATE COLLATION IF NOT EXISTS public.any_case "
                "(PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false)",
            ][family == "collation"]
            return found
        if family == "text":
            return Ids([("text", "exact"), ("character varying(40)", "exact")], texts)
        texts = list(dict.fromkeys(text.rstrip(" ") for text in texts))
        return Ids([("character(12)", "padded")], [text[:12] for text in texts] + ["n98", "n99"], "padded ids")

    def times(self, rng, count):
        type = rng.choice(
            [
                "timestamp without time zone",
                "timestamp without time zone",
                "timestamp with time zone",
                "timestamp(0) without time zone",
                "timestamp(3) with time zone",
                "date",
                "bigint",
                "numeric(20,3)",
            ]
        )
        if type in ("bigint", "numeric(20,3)"):
            return (type, "number"), [rng.randrange(-5, 1_500_000_000, 7) for _ in range(count)]
        found = values.times(rng, count)
        for i in range(count):
            if rng.random() < 0.15:
                # The hours in which a zone changes its offset.
                found[i] = rng.choice(
                    [
                        "2016-10-30 00:30:00+00",
                        "2016-10-30 01:15:00+00",
                        "2016-11-06 04:20:00+00",
                        "2016-11-06 05:00:00+00",
                    ]
                )
            elif rng.random() < 0.08:
                found[i] = rng.choice(
                    ["infinity", "-infinity", "0044-03-15 12:00:00 BC", "12016-01-01 00:00:00", "0001-01-01"]
                )
        return (type, "exact"), found

    def text_type(self, rng, charset):
        return rng.choice(["text", "text", "character varying(1000)", "character varying"])

    def extra(self, rng, pool, table):
        """Returns a column that the query does not read: type, maker of values, rest, whether it is generated."""
        text = lambda: values.text(rng, pool)
        or_null = lambda make: lambda: None if rng.random() < 0.2 else make()
        return rng.choice(
            [
                ("bytea", or_null(lambda: rng.randbytes(rng.randrange(9))), "", False),
                ("text", text, "DEFAULT 'it''s; (x)'::text NOT NULL", False),
                ("text[]", or_null(lambda: '{a,"b,c","d\\"e",NULL,"f\\\\g"}'), "", False),
                (
                    "json",
                    or_null(lambda: json.dumps({"a;": text()}, ensure_ascii=True).replace("\\u0000", "")),
                    "",
                    False,
                ),
                ("boolean", or_null(lambda: rng.random() < 0.5), "DEFAULT true", False),
                ("double precision", or_null(lambda: rng.choice([1.5, -2e300, "NaN", 0.1])), "", False),
                ("timestamp with time zone", lambda: "2016-01-01 10:00:00+02", "DEFAULT now()", False),
                ("integer", lambda: 1, "CHECK (1 > 0) UNIQUE NULLS NOT DISTINCT" if False else "CHECK (1 > 0)", False),
                ("integer", None, "GENERATED ALWAYS AS (1 + 1) STORED", True),
                ("integer", None, "GENERATED ALWAYS AS IDENTITY", True),
                ("text", None, "GENERATED ALWAYS AS ('a,b); --'::text) STORED", True),
                ("interval", or_null(lambda: "1 day 02:00:00"), "", False),
                ("point", or_null(lambda: "(1,2)"), "", False),
                ("character(3)", or_null(lambda: "a"), "", False),
            ]
        )

    def other_tables(self, rng, pool, prefix="a_"):
        text = lambda: values.text(rng, pool)
        names = rng.sample(["faces_old", "Faces", 'photos; "x"', "labels'", "photo", "FACES"], 2)
        name = prefix + names[0] if names[0] not in ("Faces", "FACES") else names[0] + prefix[0]
        found = [databases.other_table(rng, pool, name, ("integer", "text"))]
        if rng.random() < 0.5:
            schema = prefix + "archive"
            found += [
                f"CREATE SCHEMA {schema}",
                Table("faces", [Column("id", "integer"), Column("name", "text")], [[1, text()]], schema),
            ]
        return found

    def decorate(self, rng, database):
        faces, photos = database.roles["faces"], database.roles["photos"]
        if rng.random() < 0.15:
            databases.rename(database)
        if rng.random() < 0.15:
            database.items.insert(0, "CREATE SCHEMA shop")
            for table in database.roles.values():
                table.schema = "shop"
            databases.map_tables(database, "shop.")
        elif database.map:
            databases.map_tables(database)
        choice = rng.random()
        if choice < 0.15:
            table = rng.choice([faces, photos])
            key = quoted(database.columns["faces" if table is faces else "photos", "id"].name)
            table.options = f"PARTITION BY HASH ({key})"
            at = database.items.index(table) + 1
            database.items[at:at] = [
                f'CREATE TABLE public."part {i}" PARTITION OF {self.table(table)} '
                f"FOR VALUES WITH (MODULUS 2, REMAINDER {i})"
                for i in range(2)
            ]
            database.traits.add("partitions")
        elif choice < 0.3 and "references" not in database.traits:
            self._inherit(rng, database, rng.choice([faces, photos]))
        target = self.table(faces)
        label = quoted(database.columns["labels", "name"].name)
        database.after = rng.sample(
            [
                f"CREATE VIEW public.labels_view AS SELECT {label} || ';' AS n "
                f"FROM {self.table(database.roles['labels'])}",
                f"COMMENT ON TABLE {target} IS 'it''s; -- INSERT INTO faces VALUES (1)'",
                f"CREATE FUNCTION public.grow() RETURNS trigger LANGUAGE plpgsql AS $f$ "
                f"BEGIN DELETE FROM {target}; RETURN NEW; "
                f"-- it's\nEND $f$; CREATE TRIGGER grow AFTER INSERT ON {target} "
                "FOR EACH ROW EXECUTE FUNCTION public.grow()",
                "CREATE FUNCTION public.one() RETURNS integer LANGUAGE sql "
                "BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
                f"CREATE FUNCTION public.two() RETURNS text LANGUAGE sql AS 'SELECT ''a;b\\''::text'",
                (
                    f"CREATE INDEX an_index ON {self.table(photos)} USING btree ({quoted(photos.columns[0].name)})"
                    if photos.columns[0].type not in ("json", "point")
                    else "SELECT 1"
                ),
                "CREATE SEQUENCE public.counter START WITH 5",
                "CREATE TYPE public.mood AS ENUM ('a;', 'b''')",
                f"CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM {target}",
                f"CREATE RULE nothing AS ON UPDATE TO {target} DO INSTEAD (SELECT 1; SELECT 2)",
                "CREATE DOMAIN public.short AS text CHECK (length(VALUE) < 9)",
            ],
            rng.randint(0, 4),
        )

    def _inherit(self, rng, database, table):
        """Moves some rows to a table that inherits from this one, maybe as its second parent."""
        # An heir does not number its rows.
        if any("IDENTITY" in column.rest for column in table.columns):
            return
        second = rng.random() < 0.5
        if second:
            database.items.insert(0, "CREATE TABLE public.audited (who text)")
        parents = ("public.audited, " if second else "") + self.table(table)
        kept = len(table.rows) // 2
        at = database.items.index(table) + 1
        statements = [f"CREATE TABLE public.heirs (own text DEFAULT 'a') INHERITS ({parents})"]
        statements += [self.insert(table, row, "public.heirs") for row in table.rows[kept:]]
        database.items[at:at] = statements
        table.rows[kept:] = []
        database.traits.add("inheritance")

    # The database in the server.

    def table(self, table):
        return f"{quoted(table.schema or 'public')}.{quoted(table.name)}"

    def insert(self, table, row, target=None):
        columns = [column for column in table.columns if not column.generated]
        row = [value for column, value in zip(table.columns, row) if not column.generated]
        names = ", ".join(quoted(column.name) for column in columns)
        return f"INSERT INTO {target or self.table(table)} ({names}) VALUES ({', '.join(map(literal, row))})"

    def create(self, database, name):
        statements = []
        for item in database.items:
            if isinstance(item, str):
                statements.append(item)
                continue
            parts = [f"{quoted(column.name)} {column.type} {column.rest}" for column in item.columns]
            role = next((role for role, table in database.roles.items() if table is item), None)
            if role:
                key = lambda role, column="id": quoted(database.columns[role, column].name)
                for constraint in item.constraints:
                    if constraint == "key":
                        parts.append(f"PRIMARY KEY ({key(role)})")
                    elif not database.roles[constraint].options:
                        parts.append(
                            f"FOREIGN KEY ({key('faces', constraint[:-1] + '_id')}) REFERENCES "
                            f"{self.table(database.roles[constraint])} ({key(constraint)})"
                        )
            statements.append(f"CREATE TABLE {self.table(item)} ({', '.join(parts)}) {item.options}")
        # Partitions exist before the rows.
        for item in database.items:
            if not isinstance(item, str):
                statements += [self.insert(item, row) for row in item.rows]
        statements += database.after
        self.psql("postgres", "-c", f"CREATE DATABASE {name} TEMPLATE template0")
        script = os.path.join(self.folder, f"{name}.sql")
        with open(script, "w", encoding="utf-8", newline="") as file:
            file.write(";\n".join(statements) + ";\n")
        self.psql(name, "-1", "-f", script)
        os.remove(script)
        database.zone = self.ZONES[database.number % len(self.ZONES)]

    def drop(self, name):
        self.psql("postgres", "-c", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def select(self, database):
        quote = lambda named: self.table(named) if isinstance(named, Table) else quoted(named)
        return query(database, quote, lambda text, column: f"{text}::text", True)

    def query(self, database):
        return f"SELECT json_build_array({', '.join(ALIASES)}) FROM ({self.select(database)}) AS answer"

    def answer(self, database, name):
        return self.parse(self.psql(name, "-c", self.query(database), zone=database.zone))

    @staticmethod
    def parse(output):
        return [json.loads(line) for line in output.decode().split("\n") if line]

    def reloads(self, options):
        """Whether the dump with these options is a script that one transaction loads into an empty database."""
        return (
            options["sections"] in ("all", "--section")
            and options["clean"] in ("", "--clean --if-exists")
            and not options["triggers"]
        )

    def prepare(self, name):
        """Makes the database that scripts are loaded into."""
        self.psql("postgres", "-c", f"CREATE DATABASE {name} TEMPLATE template0")

    def load(self, database, name, script):
        """Loads a script into an empty database in one transaction, up to the first error, and returns the answer. A
        script that ends the transaction leaves objects: then the database is made anew."""
        try:
            return self.load_once(database, name, script)
        except processes.ToolError as error:
            if NOT_EMPTY not in str(error):
                raise
        self.drop(name)
        self.prepare(name)
        return self.load_once(database, name, script)

    def load_once(self, database, name, script):
        settings = "RESET ALL; SET client_encoding = 'UTF8'"
        output = self.psql(
            name,
            "-1",
            "-o",
            "/dev/null",
            "-c",
            EMPTY,
            "-f",
            script,
            "-c",
            "\\o",
            "-c",
            settings,
            "-c",
            "SELECT 'end of the script'",
            "-c",
            self.query(database),
            "-c",
            "ROLLBACK",
            zone=database.zone,
        )
        return self.parse(output.partition(b"end of the script\n")[2])

    # Dumps.

    EXPORTS = ["csv", "tsv", "jsonl"]

    def export(self, database, name, kind):
        """Returns the answer as a table of candidates."""
        if kind == "jsonl":
            select = self.select(database).replace("SELECT ", "SELECT row_to_json(t) FROM (SELECT ", 1) + ") t"
            return self.psql(name, "-c", select, zone=database.zone)
        form = "FORMAT csv, HEADER" if kind == "csv" else "HEADER"
        return self.psql(name, "-c", f"COPY ({self.select(database)}) TO STDOUT WITH ({form})", zone=database.zone)

    def dump(self, database, name, options):
        """Returns the dump and the names of what it may be refused for."""
        command = [
            f"{self.bin}/pg_dump",
            "-h",
            self.folder,
            "-U",
            "postgres",
            "-d",
            name,
            f"--encoding={self.ENCODINGS[database.charset]}",
        ]
        allowed = {"charset"} & database.traits
        for factor in ("clean", "dollar", "quote", "conflict", "owner", "comments", "triggers", "partition"):
            command += options[factor].split()
        if options["sections"] == "--data-only" and "inheritance" in database.traits:
            # Nothing in such a dump says which table inherits from which.
            options = {**options, "sections": "all"}
        if options["rows"] != "copy":
            command.append(options["rows"])
        if options["sections"] == "--data-only":
            command.append("--data-only")
            allowed |= {"no columns", "no types", "data only", "nothing joins"}
        elif options["sections"] == "custom":
            command += ["--format=custom", "--compress=1"]
        elif options["sections"] == "--section":
            command += ["--section=pre-data", "--section=data", "--section=post-data"]
        return processes.run(command, self.folder, environment={"PGTZ": database.zone}), allowed
