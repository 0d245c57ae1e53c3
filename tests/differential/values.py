"""Values for generated databases: texts that a reader of dumps may get wrong, ids and times."""

import datetime

# Each is valid in every database. None starts a shell or client command when a mutation makes it one.
TEXTS = [
    "",
    " ",
    "  padded  ",
    "NULL",
    "null",
    "\\N",
    "\\.",
    "DEFAULT",
    "it's",
    "''",
    "'",
    '"',
    '"quoted"',
    "`tick`",
    "a\\",
    "\\",
    "\\\\",
    "\\'",
    "C:\\temp\\new\\x41",
    "a\nb",
    "a\r\nb",
    "\t",
    "a\tb\tc",
    "\n",
    "one\n\\.\ntwo",
    "a;b",
    ";",
    "); --",
    "-- no comment",
    "/* no comment */",
    "/* open",
    "# no comment",
    "$$ $tag$ $$",
    "1,2",
    "(1,'a')",
    "');\nINSERT INTO faces " "VALUES (1,1,1,NULL);",
    "%s %d _%",
    "é",
    "ß",
    "İ",
    "ſ",
    "naïve café",
    "宇佐美 幸乃",
    "表示",
    "ソニー 十 能",
    "許功蓋",
    "誠",
    "👩‍🎤",
    "😀😀",
    "\u200b",
    "\ufeff",
    "\u00a0",
    "\u2028",
    "e\u0301",
    "\x01\x02",
    "\x1a",
    "\x7f",
    "{1,2}",
    '{"a": "b"}',
    "0",
    "1",
    "1.0",
    "0x41",
    "true",
    "E'a'",
    "x'41'",
    "_utf8'a'",
    "char(10)",
    "' || 'a",
    "a,b",
    '"a","b"',
    ",",
    "\\b\\f\\v",
    "\b\f\v",
    "BEGIN;",
    "COMMIT;",
    "-- Dump completed",
    "-- PostgreSQL database dump complete",
    "http://p.test/a?b=1&c='d'#e",
    "http://p.test/%27%5c.jpg",
    "http://p.test/絵.jpg",
    "&amp;",
    "x" * 300,
]
# What a character set can hold besides ASCII. The second byte of some characters is a backslash.
REPERTOIRES = {
    "cp932": ["表示", "ソニー", "十", "能\\", "予'", "貼る\nソ", "\\表", "構表\\ソ'"],
    "gbk": ["誠", "乗\\", "俓'", "中文\n", "\\誠'"],
    "big5": ["許功蓋", "功\\", "蓋'", "\\許\n"],
    "latin1": ["é", "ÿ\\", "ñ'", "naïve café", "«»\n"],
}
NUL_TEXTS = ["a\0b", "\0", "\0'\\"]


def ascii_texts():
    return [text for text in TEXTS if text.isascii()]


def texts(charset="utf8mb4", nul=False):
    """The texts that a database of this character set can hold."""
    found = ascii_texts() + REPERTOIRES[charset] * 3 if charset in REPERTOIRES else list(TEXTS)
    return found + NUL_TEXTS if nul else found


def text(rng, pool, longest=None):
    """One text of the pool, or two of them side by side."""
    found = rng.choice(pool) if rng.random() < 0.7 else rng.choice(pool) + rng.choice(pool)
    return found if longest is None else found[:longest]


def url(rng, pool):
    return rng.choice(["", "", "http://p.test/"]) + text(rng, pool)


TEXT_IDS = [
    "a",
    "A",
    "b",
    "007",
    "7",
    "07",
    "7 ",
    " 7",
    "10",
    "9",
    "o'k",
    "a\\b",
    'a"b',
    "é",
    "E",
    "é2",
    "宇",
    "x y",
    "-1",
    "1e1",
    "NULL",
    "null",
    "1.0",
    "zz",
    "Z",
    "😀",
    "",
    "f0",
    "0x10",
    "id;",
    "a,b",
    "a\tb",
]


def text_ids(rng, count, pool):
    """Different texts. Letters that differ in case only, and blanks at the end, occur."""
    found = [text for text in TEXT_IDS if pool is None or text.isascii()]
    rng.shuffle(found)
    return (found + [f"n{number}" for number in range(count)])[:count]


def numbers(rng, count, low=-3, high=60, large=()):
    found = rng.sample(range(low, high), min(count, high - low))
    for i, number in enumerate(large):
        if i < len(found) and rng.random() < 0.3:
            found[rng.randrange(len(found))] = number
    return list(dict.fromkeys(found))


def times(rng, count, fraction=6, first=1971, last=2037):
    """Times, few enough that several rows share one."""
    pool = []
    for _ in range(max(2, count // 2)):
        time = datetime.datetime(
            rng.randint(first, last),
            rng.randint(1, 12),
            rng.randint(1, 28),
            rng.randint(0, 23),
            rng.randint(0, 59),
            rng.randint(0, 59),
        )
        if fraction and rng.random() < 0.5:
            time += datetime.timedelta(microseconds=rng.randrange(0, 10**fraction) * 10 ** (6 - fraction))
        pool.append(str(time))
    if fraction:
        # Times of one second.
        pool.append(pool[0][:19] + ".5")
    return [rng.choice(pool) for _ in range(count)]
