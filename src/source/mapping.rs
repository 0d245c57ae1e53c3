//! The names of the tables and columns that hold faces, photos and labels.

use std::fmt;

/// The three tables that the candidate query joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Faces,
    Photos,
    Labels,
}

impl Role {
    pub const ALL: [Role; 3] = [Self::Faces, Self::Photos, Self::Labels];

    /// The table's default name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faces => "faces",
            Self::Photos => "photos",
            Self::Labels => "labels",
        }
    }

    /// The default names of the columns that the query reads. A [`SourceRow`] has their values in this order.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Faces => &["id", "photo_id", "label_id", "updated_at"],
            Self::Photos => &["id", "source_url", "photo_url", "posted_at"],
            Self::Labels => &["id", "name"],
        }
    }

    /// Whether the query works with NULL in every row of the column.
    fn is_optional(self, column: &str) -> bool {
        matches!(
            (self, column),
            (Self::Faces, "updated_at") | (Self::Photos, "source_url" | "posted_at") | (Self::Labels, "name")
        )
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The largest number of columns of a role.
pub const WIDTH: usize = 4;

/// The column of a candidate that has the value of `faces.updated_at`: see [`Mapping::carries_updated`].
pub const UPDATED: &str = "updated_at";

/// The values of one row in the order of [`Role::columns`].
pub type SourceRow<'a> = [Option<std::borrow::Cow<'a, str>>; WIDTH];

/// The positions of a role's columns in the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMap {
    pub role: Role,
    /// One index per column of the role. None: the column is left out.
    pub indices: [Option<usize>; WIDTH],
    /// Values per row of the table.
    pub width: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum ColumnMapping {
    #[default]
    Default,
    Named(String),
    LeftOut,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TableMapping {
    /// There is no such table.
    left_out: bool,
    schema: Option<String>,
    name: Option<String>,
    columns: [ColumnMapping; WIDTH],
}

/// The names of tables and columns, where they differ from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    tables: [TableMapping; 3],
    kept: Vec<KeptColumn>,
    /// Whether the candidates carry what stands in the place of `faces.updated_at`.
    carries_updated: bool,
}

/// A further column that is carried through to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptColumn {
    pub role: Role,
    pub column: String,
    /// Its name in the records.
    pub name: String,
    /// As it was written.
    pub entry: String,
}

/// All faults of the `--map` entries, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct MappingError(pub Vec<String>);

impl Mapping {
    /// Parses entries like `photos=images`, `photos=gallery.images` (schema or database), `photos.photo_url=url`,
    /// `photos.photo_url=images.url`, `photos.photo_url=gallery.images.url`, `photos.posted_at=` for a column that does
    /// not exist, and `labels=` where there is no table of labels. Names on the right may be quoted with `"` or a backtick.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, MappingError> {
        let mut mapping = Self::default();
        let mut faults: Vec<String> = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            if let Err(fault) = mapping.add_entry(entry) {
                faults.push(format!("--map {entry}: {fault}"));
            }
        }
        for (i, one) in Role::ALL.iter().enumerate() {
            for other in &Role::ALL[i + 1..] {
                let (a, b) = (&mapping.tables[*one as usize], &mapping.tables[*other as usize]);
                if mapping.table(*one) == mapping.table(*other) && a.schema == b.schema {
                    faults.push(format!("{one} and {other} are both mapped to table `{}`", mapping.table(*one)));
                }
            }
        }
        if faults.is_empty() { Ok(mapping) } else { Err(MappingError(faults)) }
    }

    /// The most columns that can be kept.
    pub const MAX_KEPT: usize = 16;

    /// Adds columns that are carried through to the records: `photos.licence`, `labels.born`, or `licence` for a column
    /// of photos or of a table of candidates.
    pub fn keep<T: AsRef<str>>(mut self, entries: &[T]) -> Result<Self, MappingError> {
        let mut faults = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            match self.kept_column(entry) {
                Ok(column) => self.kept.push(column),
                Err(fault) => faults.push(format!("--keep {entry}: {fault}")),
            }
        }
        if self.kept.len() > Self::MAX_KEPT {
            faults.push(format!("--keep: {} columns are more than {}", self.kept.len(), Self::MAX_KEPT));
        }
        if faults.is_empty() { Ok(self) } else { Err(MappingError(faults)) }
    }

    fn kept_column(&self, entry: &str) -> Result<KeptColumn, String> {
        let names = split_names(entry)?;
        let (role, column) = match names.as_slice() {
            [column] => (Role::Photos, column),
            [table, column] => {
                let role = Role::ALL.into_iter().find(|role| role.name() == table);
                (role.ok_or_else(|| format!("`{table}` is not one of faces, photos, labels"))?, column)
            }
            _ => return Err("write a column as photos.COLUMN".into()),
        };
        if self.is_left_out(role) {
            return Err(format!("--map {role}= says that there is no such table"));
        }
        if self.kept.iter().any(|kept| kept.name == *column) {
            return Err(format!("another column is kept as `{column}`"));
        }
        Ok(KeptColumn { role, column: column.clone(), name: column.clone(), entry: entry.to_owned() })
    }

    /// The columns that are carried through to the records.
    pub fn kept(&self) -> &[KeptColumn] {
        &self.kept
    }

    /// This mapping without kept columns, with columns of photos in the places of `source_url` and `posted_at`, a column
    /// of labels in that of `name`, and a column of faces in that of `updated_at`.
    pub fn with_places(
        &self,
        photos: [Option<&KeptColumn>; 2],
        label: Option<&KeptColumn>,
        face: Option<&KeptColumn>,
    ) -> Self {
        let place = |kept: Option<&KeptColumn>| match kept {
            Some(kept) => ColumnMapping::Named(kept.column.clone()),
            None => ColumnMapping::LeftOut,
        };
        let mut mapping = Self { kept: Vec::new(), ..self.clone() };
        let columns = &mut mapping.tables[Role::Photos as usize].columns;
        (columns[1], columns[3]) = (place(photos[0]), place(photos[1]));
        mapping.tables[Role::Labels as usize].columns[1] = place(label);
        mapping.tables[Role::Faces as usize].columns[3] = place(face);
        mapping.carries_updated = face.is_some();
        mapping
    }

    /// Whether candidates have the value of `faces.updated_at` among their columns, under [`UPDATED`].
    pub fn carries_updated(&self) -> bool {
        self.carries_updated
    }

    fn add_entry(&mut self, entry: &str) -> Result<(), String> {
        let (left, right) = entry.split_once('=').ok_or("no `=` found: write photos.photo_url=images.url")?;
        let (table, column) = match left.split_once('.') {
            Some((table, column)) => (table, Some(column)),
            None => (left, None),
        };
        let role = Role::ALL
            .into_iter()
            .find(|role| role.name() == table)
            .ok_or_else(|| format!("`{table}` is not one of faces, photos, labels"))?;
        let Some(column) = column else {
            if right.is_empty() {
                return self.tables[role as usize].leave_out(role);
            }
            return match split_names(right)?.as_slice() {
                [name] => self.tables[role as usize].set_table(None, name),
                [schema, name] => self.tables[role as usize].set_table(Some(schema), name),
                _ => Err("write a table as TABLE or SCHEMA.TABLE".into()),
            };
        };
        let slot = role
            .columns()
            .iter()
            .position(|known| *known == column)
            .ok_or_else(|| format!("{role} has only the columns {}", role.columns().join(", ")))?;
        let table = &mut self.tables[role as usize];
        if right.is_empty() {
            return if role.is_optional(column) || (role, column) == (Role::Photos, "id") {
                table.set_column(slot, ColumnMapping::LeftOut)
            } else {
                Err("this column is required".into())
            };
        }
        match split_names(right)?.as_slice() {
            [name] => table.set_column(slot, ColumnMapping::Named(name.clone())),
            [name, column] => {
                table.set_table(None, name)?;
                table.set_column(slot, ColumnMapping::Named(column.clone()))
            }
            [schema, name, column] => {
                table.set_table(Some(schema), name)?;
                table.set_column(slot, ColumnMapping::Named(column.clone()))
            }
            _ => Err("write a column as COLUMN, TABLE.COLUMN or SCHEMA.TABLE.COLUMN".into()),
        }
    }

    /// The table's name, mapped or default. Empty, as no table is called, where it is left out.
    pub fn table(&self, role: Role) -> &str {
        match &self.tables[role as usize] {
            TableMapping { left_out: true, .. } => "",
            table => table.name.as_deref().unwrap_or(role.name()),
        }
    }

    /// Whether there is no such table. Without labels, each value of `faces.label_id` is a label without a name.
    pub fn is_left_out(&self, role: Role) -> bool {
        self.tables[role as usize].left_out
    }

    /// The mapped schema (PostgreSQL) or database (MySQL).
    pub fn schema(&self, role: Role) -> Option<&str> {
        self.tables[role as usize].schema.as_deref()
    }

    /// The column's name, mapped or default. None: the column is left out.
    pub fn column(&self, role: Role, slot: usize) -> Option<&str> {
        match &self.tables[role as usize].columns[slot] {
            _ if self.is_left_out(role) => None,
            ColumnMapping::Default => Some(role.columns()[slot]),
            ColumnMapping::Named(name) => Some(name),
            ColumnMapping::LeftOut => None,
        }
    }

    /// The column's mapped name.
    pub fn renamed(&self, role: Role, slot: usize) -> Option<&str> {
        match &self.tables[role as usize].columns[slot] {
            ColumnMapping::Named(name) => Some(name),
            _ => None,
        }
    }

    /// Finds the role's columns among those of a table. The error has one line for each missing column.
    pub fn column_map(
        &self,
        role: Role,
        table: &str,
        columns: &[String],
        any_case: bool,
    ) -> Result<ColumnMap, Vec<String>> {
        let same = |a: &str, b: &str| a == b || (any_case && a.eq_ignore_ascii_case(b));
        let mut indices = [None; WIDTH];
        let mut missing = Vec::new();
        for (slot, default) in role.columns().iter().enumerate() {
            let Some(name) = self.column(role, slot) else {
                if !role.is_optional(default) {
                    missing.push(format!("--map {role}.{default}=: only a table of photos can do without this column"));
                }
                continue;
            };
            indices[slot] = columns.iter().position(|column| same(column, name));
            if indices[slot].is_none() {
                let or_none = if role.is_optional(default) {
                    format!(", or use --map {role}.{default}= if it does not exist")
                } else {
                    String::new()
                };
                missing.push(format!(
                    "column `{name}` is missing in table `{table}` ({}): \
                     name it with --map {role}.{default}=COLUMN{or_none}",
                    columns.join(", ")
                ));
            }
        }
        if missing.is_empty() { Ok(ColumnMap { role, indices, width: columns.len() }) } else { Err(missing) }
    }
}

impl TableMapping {
    fn leave_out(&mut self, role: Role) -> Result<(), String> {
        if role != Role::Labels {
            return Err("this table is required".into());
        }
        if *self != Self::default() {
            return Err("another entry maps the table or one of its columns".into());
        }
        self.left_out = true;
        Ok(())
    }

    fn check_present(&self) -> Result<(), String> {
        if self.left_out { Err("another entry says that there is no such table".into()) } else { Ok(()) }
    }

    fn set_table(&mut self, schema: Option<&String>, name: &str) -> Result<(), String> {
        self.check_present()?;
        if let Some(other) = self.name.as_deref().filter(|other| *other != name) {
            return Err(format!("another entry maps the table to `{other}`"));
        }
        if let (Some(schema), Some(other)) = (schema, &self.schema)
            && schema != other
        {
            return Err(format!("another entry maps the table to schema `{other}`"));
        }
        self.name = Some(name.to_owned());
        self.schema = schema.cloned().or(self.schema.take());
        Ok(())
    }

    fn set_column(&mut self, slot: usize, column: ColumnMapping) -> Result<(), String> {
        self.check_present()?;
        if self.columns[slot] != ColumnMapping::Default && self.columns[slot] != column {
            return Err("another entry maps this column differently".into());
        }
        self.columns[slot] = column;
        Ok(())
    }
}

/// Splits `a."b.c".d` into its names.
fn split_names(text: &str) -> Result<Vec<String>, String> {
    let mut split_names = Vec::new();
    let mut rest = text;
    loop {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '`'));
        let (name, after) = match quote {
            Some(quote) => rest[1..].split_once(quote).ok_or("missing closing quote")?,
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        if name.is_empty() {
            return Err("empty name".into());
        }
        split_names.push(name.to_owned());
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(split_names),
            None => return Err(format!("unexpected `{after}` after a quoted name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_tables_schemas_and_columns() {
        let mapping = Mapping::parse(&[
            "photos.photo_url=images.url",
            "photos.posted_at=",
            "faces=shop.faces",
            "labels.name=\"odd.schema\".people.full_name",
        ])
        .unwrap();
        assert_eq!(mapping.table(Role::Photos), "images");
        assert_eq!(mapping.column(Role::Photos, 2), Some("url"));
        assert_eq!(mapping.column(Role::Photos, 3), None);
        assert_eq!(mapping.column(Role::Photos, 1), Some("source_url"));
        assert_eq!((mapping.schema(Role::Faces), mapping.table(Role::Faces)), (Some("shop"), "faces"));
        assert_eq!((mapping.schema(Role::Labels), mapping.table(Role::Labels)), (Some("odd.schema"), "people"));
    }

    #[test]
    fn only_the_table_of_labels_can_be_left_out() {
        let without = Mapping::parse(&["labels=", "labels="]).unwrap_err().0;
        assert_eq!(without, ["--map labels=: another entry maps the table or one of its columns"]);
        let without = Mapping::parse(&["labels="]).unwrap();
        assert!(without.is_left_out(Role::Labels) && !without.is_left_out(Role::Photos));
        assert_eq!((without.column(Role::Labels, 0), without.column(Role::Faces, 2)), (None, Some("label_id")));
        assert!(without.keep(&["labels.born"]).unwrap_err().0[0].contains("--map labels= says"));
        for (entries, fault) in [
            (&["photos="][..], "this table is required"),
            (&["labels=", "labels.name=x"], "another entry says that there is no such table"),
            (&["labels=people", "labels="], "another entry maps the table or one of its columns"),
        ] {
            assert!(Mapping::parse(entries).unwrap_err().0[0].ends_with(fault), "{entries:?}");
        }
    }

    #[test]
    fn all_faults_are_reported() {
        let faults = Mapping::parse(&[
            "photo=images",
            "photos",
            "photos.caption=text",
            "photos.photo_url=",
            "photos.id=a.id",
            "photos.photo_url=b.url",
            "faces=labels",
            "labels=a.b.c",
            "labels.name=x..y",
        ])
        .unwrap_err()
        .0;
        assert_eq!(faults.len(), 8, "{faults:#?}");
        assert!(faults.iter().any(|fault| fault == "faces and labels are both mapped to table `labels`"));
    }

    #[test]
    fn kept_columns_are_named_once() {
        let mapping = Mapping::default().keep(&["photos.licence", "labels.born", "\"a.b\""]).unwrap();
        let names: Vec<_> = mapping.kept().iter().map(|kept| (kept.role, kept.name.as_str())).collect();
        assert_eq!(names, [(Role::Photos, "licence"), (Role::Labels, "born"), (Role::Photos, "a.b")]);
        let faults = Mapping::default().keep(&["images.x", "a.b.c", "labels.x", "x", ""]).unwrap_err().0;
        assert_eq!(faults.len(), 4, "{faults:#?}");
        assert!(faults[2].ends_with("another column is kept as `x`"), "{faults:#?}");
        let columns = ["id", "source_url", "photo_url", "posted_at"].map(String::from);
        let without_ids = Mapping::parse(&["photos.id="]).unwrap();
        assert!(without_ids.column_map(Role::Photos, "photos", &columns, false).is_err());
    }

    #[test]
    fn every_missing_column_is_reported_with_its_remedy() {
        let columns = ["url", "ID"].map(String::from);
        let missing = Mapping::default().column_map(Role::Photos, "images", &columns, true).unwrap_err();
        assert_eq!(missing.len(), 3);
        assert!(missing[0].contains("`source_url` is missing in table `images` (url, ID)"), "{}", missing[0]);
        assert!(
            missing[0]
                .ends_with("--map photos.source_url=COLUMN, or use --map photos.source_url= if it does not exist")
        );
        assert!(missing[1].ends_with("--map photos.photo_url=COLUMN"));
        let mapping = Mapping::parse(&["photos.source_url=", "photos.posted_at=", "photos.photo_url=url"]).unwrap();
        let column_map = mapping.column_map(Role::Photos, "images", &columns, true).unwrap();
        assert_eq!(column_map, ColumnMap { role: Role::Photos, indices: [Some(1), None, Some(0), None], width: 2 });
        assert!(mapping.column_map(Role::Photos, "images", &columns, false).is_err());
    }
}
