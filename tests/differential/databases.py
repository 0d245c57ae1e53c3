"""Generates source databases: tables of photos, faces and labels with rows that a reader of dumps may get wrong.

A database follows from its seed, server and number alone. It is a list of tables and of statements around them; the
modules of the servers write it as SQL.
"""

import dataclasses
import random

import values

ROLES = {
    "labels": ["id", "name"],
    "photos": ["id", "source_url", "photo_url", "posted_at"],
    "faces": ["id", "photo_id", "label_id", "updated_at"],
}


# Names of columns that need quotes, or look like a part of a statement.
ODD_NAMES = [
    "key",
    "order",
    "Photo URL",
    'a"b',
    "it's",
    "primary",
    "constraint",
    "check",
    "like",
    "unique",
    "a;b",
    "(x)",
    "values",
    "--",
]


@dataclasses.dataclass
class Column:
    name: str
    type: str
    # How two texts of a value compare: exact, number (1.0 is 1), padded (blanks at the end do not count), binary (hex).
    compare: str = "exact"
    # What follows the type, such as NOT NULL.
    rest: str = ""
    # The value is worked out by the database: no INSERT names the column.
    generated: bool = False


@dataclasses.dataclass
class Table:
    name: str
    columns: list
    rows: list
    schema: str = ""
    constraints: list = dataclasses.field(default_factory=list)
    options: str = ""


@dataclasses.dataclass
class Database:
    server: str
    number: int
    seed: str
    # Tables and SQL statements, in the order of creation.
    items: list = dataclasses.field(default_factory=list)
    # role -> Table, and (role, column) -> Column
    roles: dict = dataclasses.field(default_factory=dict)
    columns: dict = dataclasses.field(default_factory=dict)
    charset: str = "utf8mb4"
    # Names of what is special here. A comparison may allow a refusal for one of them.
    traits: set = dataclasses.field(default_factory=set)
    map: list = dataclasses.field(default_factory=list)
    # Statements that run after the rows, such as triggers and views.
    after: list = dataclasses.field(default_factory=list)

    @property
    def id(self):
        return f"{self.server}/{self.number}"


@dataclasses.dataclass
class Ids:
    """The ids of a table: SQL types that may be joined with each other, and values."""

    types: list
    values: list
    trait: str = ""
    # Another spelling that the server's collation takes for the same id: called with the generator and a value.
    vary: object = None
    # A statement that makes the type.
    needs: str = ""


def generate(seed, server, number):
    """Returns the database of this number."""
    rng = random.Random(f"{seed}/{server.name}/{number}")
    database = Database(server.name, number, str(seed))
    database.charset = server.charset(rng)
    pool = values.texts(database.charset, nul=server.nul_in_texts or database.charset == "nul")
    if database.charset in values.REPERTOIRES:
        database.traits.add("charset")
    keyed = rng.random() < 0.8
    sizes = {"labels": rng.randint(1, 5), "photos": rng.randint(3, 14), "faces": rng.randint(3, 20)}
    if rng.random() < 0.05:
        sizes["faces"] = 0
    ids = {}
    for role, size in sizes.items():
        ids[role] = server.ids(rng, size, pool if database.charset in values.REPERTOIRES else None)
        if ids[role].trait:
            database.traits.add(ids[role].trait)
    if not keyed:
        database.traits.add("no keys")
    rows = _rows(rng, server, database, sizes, ids, pool, keyed)
    _tables(rng, server, database, ids, rows, pool, keyed)
    return database


def _rows(rng, server, database, sizes, ids, pool, keyed):
    """Returns role -> rows of the query's columns."""
    known = {role: ids[role].values[:size] for role, size in sizes.items()}
    for role in known:
        if not keyed and known[role] and rng.random() < 0.5:
            known[role] = known[role] + [rng.choice(known[role])]
            database.traits.add("doubled ids")
    unseen = rng.sample(known["photos"], len(known["photos"]))
    dangling = {role: ids[role].values[sizes[role] :] for role in ("photos", "labels")}
    posted, updated = server.times(rng, len(known["photos"])), server.times(rng, len(known["faces"]))
    database.time_types = (posted[0], updated[0])
    or_null = lambda value, share: None if rng.random() < share else value

    def other(role, share):
        """The id of a row of another table, NULL, or an id that does not exist."""
        if rng.random() < share or not known[role]:
            return None
        if dangling[role] and rng.random() < 0.1:
            database.traits.add("dangling")
            return rng.choice(dangling[role])
        # Most photos have one face, so that there are candidates.
        fresh = role == "photos" and unseen and rng.random() < 0.7
        found = unseen.pop() if fresh else rng.choice(known[role])
        return ids[role].vary(rng, found) if ids[role].vary and rng.random() < 0.5 else found

    texts = lambda longest=None: values.text(rng, pool, longest)
    faces = [
        [id, other("photos", 0.05), other("labels", 0.3), or_null(time, 0.1)]
        for id, time in zip(known["faces"], updated[1])
    ]
    labels = [[id, or_null(texts(200), 0.15)] for id in known["labels"]]
    photos = [
        [id, or_null(texts(), 0.3), or_null(values.url(rng, pool), 0.05), or_null(time, 0.2)]
        for id, time in zip(known["photos"], posted[1])
    ]
    return {"labels": labels, "photos": photos, "faces": faces}


def _tables(rng, server, database, ids, rows, pool, keyed):
    joined = {("faces", "photo_id"): "photos", ("faces", "label_id"): "labels"}
    order = list(ROLES)
    references = keyed and "dangling" not in database.traits and rng.random() < 0.4
    if not references:
        rng.shuffle(order)
    if server.decoys and rng.random() < 0.5:
        database.items.extend(server.other_tables(rng, pool))
    database.items.extend({ids[role].needs: None for role in ids if ids[role].needs})
    used = {}
    for role in order:
        columns = []
        for name in ROLES[role]:
            if name.endswith("id"):
                source = ids[joined.get((role, name), role)]
                type, compare = rng.choice(source.types)
                if references and (role, name) in joined:
                    type, compare = used[joined[role, name]]
                if name == "id":
                    used[role] = (type, compare)
                rest = ""
            elif name.endswith("_at"):
                (type, compare), rest = database.time_types[0 if name == "posted_at" else 1], ""
            else:
                type, compare, rest = server.text_type(rng, database.charset), "exact", ""
            columns.append(Column(name, type, compare, rest))
        table = Table(role, columns, [list(row) for row in rows[role]])
        if keyed:
            table.constraints.append("key")
        if references and role == "faces":
            table.constraints += ["photos", "labels"]
            database.traits.add("references")
        database.roles[role] = table
        for column in columns:
            database.columns[role, column.name] = column
        _extras(rng, server, table, pool)
        database.items.append(table)
    if server.decoys and rng.random() < 0.5:
        database.items.extend(server.other_tables(rng, pool, "z_"))
    server.decorate(rng, database)


def _extras(rng, server, table, pool):
    """Adds columns that the query does not read, and shuffles all."""
    for i in range(rng.choice([0, 0, 1, 1, 2, 3])):
        type, make, rest, generated = server.extra(rng, pool, table)
        name = rng.choice(server.odd_names) if rng.random() < 0.3 and i == 0 else f"extra_{i}"
        table.columns.append(Column(name, type, rest=rest, generated=generated))
        for row in table.rows:
            row.append(None if generated else make())
    order = list(range(len(table.columns)))
    if rng.random() < 0.7:
        rng.shuffle(order)
    table.columns[:] = [table.columns[i] for i in order]
    table.rows[:] = [[row[i] for i in order] for row in table.rows]


def rename(database):
    """Gives tables and columns other names, and maps those of the columns."""
    database.roles["photos"].name = "Bilder; 1"
    database.roles["labels"].name = "personen"
    for role, column, name in [
        ("photos", "photo_url", "Photo.URL"),
        ("labels", "name", "full name"),
        ("faces", "photo_id", "PHOTO"),
    ]:
        database.columns[role, column].name = name
        database.map.append(f'{role}.{column}="{name}"')


def map_tables(database, schema=""):
    """Maps the names of the tables."""
    database.map += [f'{role}={schema}"{table.name}"' for role, table in database.roles.items()]


def other_table(rng, pool, name, types, schema=""):
    """A table that the query does not read, with three rows. `types` are those of a number and of a text."""
    columns = [Column("id", types[0]), Column("label_id", types[1])]
    return Table(name, columns, [[i, values.text(rng, pool)] for i in range(3)], schema)


# The names of the answer's columns.
ALIASES = ["photo_id", "face_id", "label_id", "label_name", "photo_url", "source_url", "posted_at", "updated_at"]


def query(database, name, as_text, nulls_first):
    """The SQL of the candidates, with the time of the face as an eighth column.

    `name` quotes a table or column; `as_text` writes a value of a column.

    NULL is the latest time in every database, as the documentation of the reader says."""

    def column(role, column):
        return f"{role[0]}.{name(database.columns[role, column].name)}"

    def table(role):
        return f"{name(database.roles[role])} {role[0]}"

    shown = [
        ("photos", "id"),
        ("faces", "id"),
        ("labels", "id"),
        ("labels", "name"),
        ("photos", "photo_url"),
        ("photos", "source_url"),
        ("photos", "posted_at"),
        ("faces", "updated_at"),
    ]
    texts = ", ".join(
        f"{as_text(column(*pair), database.columns[pair])} AS {alias}" for pair, alias in zip(shown, ALIASES)
    )
    one = (
        f"SELECT {column('photos', 'id')} FROM {table('faces')} INNER JOIN {table('photos')} "
        f"ON {column('photos', 'id')} = {column('faces', 'photo_id')} WHERE {column('faces', 'label_id')} IS NOT NULL "
        f"GROUP BY {column('photos', 'id')} HAVING COUNT({column('faces', 'id')}) = 1"
    )
    updated = column("faces", "updated_at")
    order = f"{updated} DESC{' NULLS FIRST' if nulls_first else ''}, {column('faces', 'id')}"
    return (
        f"SELECT {texts} FROM {table('faces')} INNER JOIN {table('photos')} ON {column('photos', 'id')} = "
        f"{column('faces', 'photo_id')} INNER JOIN {table('labels')} ON {column('labels', 'id')} = "
        f"{column('faces', 'label_id')} WHERE {column('photos', 'id')} IN ({one}) ORDER BY "
        f"{updated} IS NULL DESC, {order}"
    )
