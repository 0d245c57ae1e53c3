//! The data card: what a dataset is, in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::entry::Entry;
use super::settings::{ExportFormat, ExportSettings, Origin, VersionMark};
use crate::dataset::selection::Selection;
use crate::domain::RunName;

/// The least sizes of the rows about sizes, pixels.
const SIZES: [u32; 5] = [0, 256, 512, 1024, 2048];
/// Labels and hosts that are named.
const NAMED: usize = 20;

/// Counts the faces of a dataset for its card.
pub struct Card<'a> {
    run: &'a RunName,
    settings: &'a ExportSettings,
    selection: &'a Selection,
    sizes: [usize; SIZES.len()],
    verdicts: BTreeMap<&'static str, usize>,
    labels: BTreeMap<String, usize>,
    hosts: BTreeMap<String, usize>,
    years: BTreeMap<String, usize>,
    alignments: BTreeMap<&'static str, usize>,
}

impl<'a> Card<'a> {
    pub fn new(run: &'a RunName, settings: &'a ExportSettings, selection: &'a Selection) -> Self {
        Self {
            run,
            settings,
            selection,
            sizes: [0; SIZES.len()],
            verdicts: BTreeMap::new(),
            labels: BTreeMap::new(),
            hosts: BTreeMap::new(),
            years: BTreeMap::new(),
            alignments: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, entry: &Entry) {
        let face = &entry.face;
        let row = SIZES.iter().rposition(|least| face.size >= *least).unwrap_or_default();
        self.sizes[row] += 1;
        let verdict = face.verdict.as_ref().map_or("not judged", |verdict| verdict.judgement.as_str());
        *self.verdicts.entry(verdict).or_default() += 1;
        *self.labels.entry(entry.label.clone()).or_default() += 1;
        *self.hosts.entry(face.host()).or_default() += 1;
        // Every source database writes the year first.
        let year = face.posted_at.as_deref().and_then(|time| time.get(..4));
        let year = year.filter(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
        *self.years.entry(year.unwrap_or("unknown").to_owned()).or_default() += 1;
        *self.alignments.entry(face.align.as_str()).or_default() += 1;
    }

    /// The card. The same dataset has the same card.
    pub fn text(&self) -> String {
        let Self { run, settings, selection, .. } = self;
        let mut text = String::new();
        if settings.format != ExportFormat::StyleGan {
            text.push_str("---\ntask_categories:\n- image-classification\ntags:\n- faces\n---\n\n");
        }
        let faces = selection.faces.len();
        let size = settings.size;
        let origin = match &settings.origin {
            Origin::Query(wanted) => format!(
                "| query | `{}` |\n| faces that fulfil it | {} |\n",
                wanted.query.to_string().replace('|', "\\|"),
                selection.matching
            ),
            Origin::Version { version, since } => {
                let since = since.as_ref().map(|since| format!("| changes since | `{}` |\n", since.name));
                let VersionMark { name, digest } = version;
                format!(
                    "| version | `{name}` |\n| digest of the version | `{digest}` |\n| faces of the version | {} |\n{}",
                    selection.matching,
                    since.unwrap_or_default()
                )
            }
        };
        let _ = write!(
            text,
            "# Faces of run {run}\n\n{faces} aligned faces of {size}x{size} pixels, made with facemill {}.\n\n\
             | | |\n| --- | --- |\n{origin}| left out: smaller than {size} \
             pixels | {} |\n| left out: the crop of another photo | {} |\n| left out: near-duplicates of a better crop | \
             {} |\n| left out: beyond the limit of their label | {} |\n| left out: beyond the limit of their identity | {} \
             |\n| resized | Lanczos, {} |\n",
            env!("CARGO_PKG_VERSION"),
            if settings.upscale { 0 } else { selection.too_small },
            selection.copies,
            selection.duplicates,
            selection.beyond_label_limit,
            selection.beyond_identity_limit,
            if settings.light == super::settings::Light::Linear { "in linear light" } else { "in values of sRGB" },
        );
        let sizes = SIZES.iter().zip(self.sizes).map(|(least, count)| (format!("{least} pixels or more"), count));
        table(&mut text, "Size of the crops", "size", sizes.collect(), faces);
        let names = |counts: &BTreeMap<&'static str, usize>| {
            counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        table(&mut text, "Verdicts", "verdict", names(&self.verdicts), faces);
        table(&mut text, "Alignment", "alignment", names(&self.alignments), faces);
        let years = self.years.iter().map(|(year, count)| (year.clone(), *count)).collect();
        table(&mut text, "Years of publication", "year", years, faces);
        table(&mut text, &format!("Labels: {}", self.labels.len()), "label", most(&self.labels), faces);
        table(&mut text, &format!("Hosts: {}", self.hosts.len()), "host", most(&self.hosts), faces);
        text.push_str(
            "\n## Terms\n\nThe photos belong to their authors, and the people in them have rights of their own. The manifest \
             names the source of each. The landmarks come from a model that was trained on iBUG 300-W, whose licence \
             excludes commercial use.\n",
        );
        text
    }
}

/// The most frequent, and the sum of the others.
fn most(counts: &BTreeMap<String, usize>) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = counts.iter().map(|(name, count)| (name.clone(), *count)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if counts.len() > NAMED {
        let rest = counts.split_off(NAMED);
        counts.push((format!("{} others", rest.len()), rest.iter().map(|(_, count)| count).sum()));
    }
    counts
}

fn table(text: &mut String, title: &str, column: &str, rows: Vec<(String, usize)>, faces: usize) {
    let _ = write!(text, "\n## {title}\n\n| {column} | faces | share |\n| --- | ---: | ---: |\n");
    for (name, count) in rows.into_iter().filter(|(_, count)| *count > 0) {
        let name = if name.is_empty() { "(none)".to_owned() } else { escaped(&name) };
        let _ = writeln!(text, "| {name} | {count} | {:.1} % |", 100.0 * count as f64 / faces as f64);
    }
}

/// Text of strangers in a cell of a table: it ends neither the cell nor the line, and is neither HTML nor a link.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() => escaped.push(' '),
            '|' | '[' | ']' | '`' | '*' | '_' | '\\' | '!' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_stays_text() {
        assert_eq!(escaped("a|b<script>\n![x](y)"), "a\\|b&lt;script&gt; \\!\\[x\\](y)");
    }

    #[test]
    fn the_most_frequent_are_named() {
        let counts: BTreeMap<String, usize> = (0..30).map(|number| (format!("{number:02}"), number)).collect();
        let rows = most(&counts);
        assert_eq!((rows.len(), &rows[0], &rows[20]), (21, &("29".into(), 29), &("10 others".into(), 45)));
    }
}
