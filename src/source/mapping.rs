//! Which tables and columns hold faces, photos and labels.

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

    /// The default names of the columns that the query reads. A [`Row`] has their values in this order.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Faces => &["id", "photo_id", "label_id", "updated_at"],
            Self::Photos => &["id", "source_url", "photo_url", "posted_at"],
            Self::Labels => &["id", "name"],
        }
    }

    /// Whether the query still makes sense when the column is NULL in every row.
    fn can_do_without(self, column: &str) -> bool {
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

/// The most columns a role has.
pub const WIDTH: usize = 4;

/// The values of one row in the order of [`Role::columns`].
pub type Row<'a> = [Option<std::borrow::Cow<'a, str>>; WIDTH];

/// Where the columns of a role are found in the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub role: Role,
    /// For each of the role's columns its place in the row; none where it is left out.
    pub places: [Option<usize>; WIDTH],
    /// How many values a row of the table has.
    pub width: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Column {
    #[default]
    Default,
    Named(String),
    LeftOut,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Table {
    schema: Option<String>,
    name: Option<String>,
    columns: [Column; WIDTH],
}

/// The names of tables and columns, where they differ from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    tables: [Table; 3],
}

/// Everything that is wrong with the `--map` entries, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BadMapping(pub Vec<String>);

impl Mapping {
    /// Reads entries like `photos=images`, `photos=gallery.images` (schema or database), `photos.photo_url=url`,
    /// `photos.photo_url=images.url`, `photos.photo_url=gallery.images.url`, and `photos.posted_at=` for a column
    /// that there is not. Names on the right may be quoted with `"` or a backtick.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, BadMapping> {
        let mut mapping = Self::default();
        let mut faults: Vec<String> = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            if let Err(fault) = mapping.enter(entry) {
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
        if faults.is_empty() { Ok(mapping) } else { Err(BadMapping(faults)) }
    }

    fn enter(&mut self, entry: &str) -> Result<(), String> {
        let (left, right) = entry.split_once('=').ok_or("it has no `=`; write photos.photo_url=images.url")?;
        let (table, column) = match left.split_once('.') {
            Some((table, column)) => (table, Some(column)),
            None => (left, None),
        };
        let role = Role::ALL
            .into_iter()
            .find(|role| role.name() == table)
            .ok_or_else(|| format!("`{table}` is none of faces, photos and labels"))?;
        let Some(column) = column else {
            return match names(right)?.as_slice() {
                [name] => self.tables[role as usize].place(None, name),
                [schema, name] => self.tables[role as usize].place(Some(schema), name),
                _ => Err("a table is written TABLE or SCHEMA.TABLE".into()),
            };
        };
        let slot = role
            .columns()
            .iter()
            .position(|known| *known == column)
            .ok_or_else(|| format!("{role} is read for {} only", role.columns().join(", ")))?;
        let table = &mut self.tables[role as usize];
        if right.is_empty() {
            return if role.can_do_without(column) {
                table.rename(slot, Column::LeftOut)
            } else {
                Err("this column cannot be left out".into())
            };
        }
        match names(right)?.as_slice() {
            [name] => table.rename(slot, Column::Named(name.clone())),
            [name, column] => {
                table.place(None, name)?;
                table.rename(slot, Column::Named(column.clone()))
            }
            [schema, name, column] => {
                table.place(Some(schema), name)?;
                table.rename(slot, Column::Named(column.clone()))
            }
            _ => Err("a column is written COLUMN, TABLE.COLUMN or SCHEMA.TABLE.COLUMN".into()),
        }
    }

    /// The table's name.
    pub fn table(&self, role: Role) -> &str {
        self.tables[role as usize].name.as_deref().unwrap_or(role.name())
    }

    /// The schema (PostgreSQL) or database (MySQL) that was asked for.
    pub fn schema(&self, role: Role) -> Option<&str> {
        self.tables[role as usize].schema.as_deref()
    }

    /// The column's name; none when it is left out.
    pub fn column(&self, role: Role, slot: usize) -> Option<&str> {
        match &self.tables[role as usize].columns[slot] {
            Column::Default => Some(role.columns()[slot]),
            Column::Named(name) => Some(name),
            Column::LeftOut => None,
        }
    }

    /// The column's name if it was mapped.
    pub fn renamed(&self, role: Role, slot: usize) -> Option<&str> {
        match &self.tables[role as usize].columns[slot] {
            Column::Named(name) => Some(name),
            _ => None,
        }
    }

    /// Finds the role's columns among a table's. Answers one line for each that is missing.
    pub fn route(&self, role: Role, table: &str, columns: &[String], any_case: bool) -> Result<Route, Vec<String>> {
        let same = |a: &str, b: &str| a == b || (any_case && a.eq_ignore_ascii_case(b));
        let mut places = [None; WIDTH];
        let mut missing = Vec::new();
        for (slot, default) in role.columns().iter().enumerate() {
            let Some(name) = self.column(role, slot) else { continue };
            places[slot] = columns.iter().position(|column| same(column, name));
            if places[slot].is_none() {
                let or_none = if role.can_do_without(default) {
                    format!(", or --map {role}.{default}= if there is none")
                } else {
                    String::new()
                };
                missing.push(format!(
                    "column `{name}` is not in table `{table}` ({}): \
                     name it with --map {role}.{default}=COLUMN{or_none}",
                    columns.join(", ")
                ));
            }
        }
        if missing.is_empty() { Ok(Route { role, places, width: columns.len() }) } else { Err(missing) }
    }
}

impl Table {
    fn place(&mut self, schema: Option<&String>, name: &str) -> Result<(), String> {
        if let Some(other) = self.name.as_deref().filter(|other| *other != name) {
            return Err(format!("another entry says that the table is `{other}`"));
        }
        if let (Some(schema), Some(other)) = (schema, &self.schema)
            && schema != other
        {
            return Err(format!("another entry says that the table is in `{other}`"));
        }
        self.name = Some(name.to_owned());
        self.schema = schema.cloned().or(self.schema.take());
        Ok(())
    }

    fn rename(&mut self, slot: usize, column: Column) -> Result<(), String> {
        if self.columns[slot] != Column::Default && self.columns[slot] != column {
            return Err("another entry says something else about this column".into());
        }
        self.columns[slot] = column;
        Ok(())
    }
}

/// Splits `a."b.c".d` into its names.
fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '`'));
        let (name, after) = match quote {
            Some(quote) => rest[1..].split_once(quote).ok_or("a quote is not closed")?,
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        if name.is_empty() {
            return Err("a name is empty".into());
        }
        names.push(name.to_owned());
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(names),
            None => return Err(format!("`{after}` follows a quoted name")),
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
    fn all_faults_are_told_at_once() {
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
    fn a_route_tells_every_missing_column_with_its_remedy() {
        let columns = ["url", "ID"].map(String::from);
        let missing = Mapping::default().route(Role::Photos, "images", &columns, true).unwrap_err();
        assert_eq!(missing.len(), 3);
        assert!(missing[0].contains("`source_url` is not in table `images` (url, ID)"), "{}", missing[0]);
        assert!(missing[0].ends_with("--map photos.source_url=COLUMN, or --map photos.source_url= if there is none"));
        assert!(missing[1].ends_with("--map photos.photo_url=COLUMN"));
        let mapping = Mapping::parse(&["photos.source_url=", "photos.posted_at=", "photos.photo_url=url"]).unwrap();
        let route = mapping.route(Role::Photos, "images", &columns, true).unwrap();
        assert_eq!(route, Route { role: Role::Photos, places: [Some(1), None, Some(0), None], width: 2 });
        assert!(mapping.route(Role::Photos, "images", &columns, false).is_err());
    }
}
