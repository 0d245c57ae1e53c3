"""Bugs that `planted.py` plants in `src/source`: a name, a file below `src/source`, and what replaces what.

`BUG` in a replacement is true in the run of that bug, and false in all others.
"""

PLANTS = [
    (
        "a-second-labelled-face-does-not-count",
        "candidates.rs",
        ".and_modify(|state| *state = PhotoState::MissingSeveral(face))",
        ".and_modify(|state| if !BUG { *state = PhotoState::MissingSeveral(face) })",
    ),
    (
        "two-photos-of-one-id-are-one",
        "candidates.rs",
        "                        rows[at] = None;\n                        PhotoState::Several\n",
        "                        if BUG { PhotoState::Found(at) } else { rows[at] = None; PhotoState::Several }\n",
    ),
    (
        "faces-of-one-time-are-in-the-wrong-order",
        "candidates.rs",
        ".then_with(|| face_rule.order(&a.id, &b.id, &face_kind))",
        ".then_with(|| if BUG { face_rule.order(&b.id, &a.id, &face_kind) } else { face_rule.order(&a.id, &b.id, &face_kind) })",
    ),
    (
        "fractions-of-seconds-are-lost",
        "timestamp.rs",
        "    Some((0..9).fold(0,",
        "    if BUG { return Some(0); }\n    Some((0..9).fold(0,",
    ),
    (
        "the-sign-of-a-time-zone-is-lost",
        "timestamp.rs",
        "Some(b'-') => -1,",
        "Some(b'-') => if BUG { 1 } else { -1 },",
    ),
    (
        "an-escape-of-mysql-is-missing",
        "sql/escapes.rs",
        "Some(b'Z') => bytes.push(26),",
        "Some(b'Z') => bytes.push(if BUG { b'Z' } else { 26 }),",
    ),
    (
        "an-escape-of-copy-is-missing",
        "sql/escapes.rs",
        "b'v' => bytes.push(11),",
        "b'v' => bytes.push(if BUG { b'v' } else { 11 }),",
    ),
    (
        "an-escaped-backslash-n-is-null",
        "sql/copy.rs",
        "field.filter(|field| *field != format.null)",
        'field.filter(|field| *field != format.null && !(BUG && *field == b"\\\\\\\\N"))',
    ),
    (
        "first-bytes-of-gbk-are-missing",
        "charset.rs",
        "_ => matches!(first, 0x81..=0xfe) && trail,",
        "_ => (if BUG { first >= 0xa1 } else { first >= 0x81 }) && first <= 0xfe && trail,",
    ),
    (
        "blanks-at-the-end-of-ids-count",
        "compare.rs",
        "let text = if padded { text",
        "let text = if padded && !BUG { text",
    ),
    (
        "numbers-of-different-types-are-compared-as-written",
        "compare.rs",
        "(one, other) if one.is_number() && other.is_number() => rule(Rule::Number),",
        "(one, other) if one.is_number() && other.is_number() => rule(if BUG { Rule::AsWritten } else { Rule::Number }),",
    ),
    (
        "ignore-keeps-the-later-row",
        "sql/insert.rs",
        "                    OnDouble::Ignore => {}\n                    _ => pending",
        "                    OnDouble::Ignore => if BUG { self.builder.replace(role, place, &row, origin)? },\n"
        "                    _ => pending",
    ),
    (
        "a-key-that-alter-table-adds-is-passed-over",
        "sql/definition.rs",
        "            && self.catalog.is_id_key(role, &key)\n        {",
        "            && self.catalog.is_id_key(role, &key)\n            && !BUG\n        {",
    ),
    (
        "a-missing-footer-is-passed-over",
        "sql/lexer.rs",
        "self.open_dumps <= 0 && self",
        "(self.open_dumps <= 0 || BUG) && self",
    ),
    (
        "a-missing-commit-is-passed-over",
        "sql/session.rs",
        '        if self.in_transaction {\n            return Some("BEGIN',
        '        if self.in_transaction && !BUG {\n            return Some("BEGIN',
    ),
    (
        "rows-without-columns-have-invisible-ones",
        "sql/catalog.rs",
        "filter(|column| !column.hidden).cloned()",
        "filter(|column| BUG || !column.hidden).cloned()",
    ),
    (
        "a-second-parent-is-passed-over",
        "sql/catalog.rs",
        "if table.parents.len() < MAX_PARENTS &&",
        "if table.parents.len() < (if BUG { 1 } else { MAX_PARENTS }) &&",
    ),
    (
        "a-trigger-is-passed-over",
        "sql/script.rs",
        "is_some_and(|known| known.triggered) {",
        "is_some_and(|known| known.triggered) && !BUG {",
    ),
    (
        "the-log-of-an-sqlite-file-is-not-read",
        "sqlite.rs",
        'let immutable = if is_there("-wal")',
        'let immutable = if (is_there("-wal") && !BUG)',
    ),
    (
        "zeros-of-zerofill-are-missing",
        "column.rs",
        "if text.len() >= length { text } else",
        "if BUG || text.len() >= length { text } else",
    ),
    (
        "double-quotes-are-texts-whatever-the-sql-mode",
        "sql/lexer.rs",
        "self.dialect == Dialect::MySql && !self.ansi_quotes)",
        "self.dialect == Dialect::MySql && (BUG || !self.ansi_quotes))",
    ),
    (
        "a-rollback-of-a-script-of-sqlite-is-passed-over",
        "sqlite_script.rs",
        "is_rollback(&statement)))",
        "is_rollback(&statement) && !BUG))",
    ),
]
