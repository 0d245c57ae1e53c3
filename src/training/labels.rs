//! Labelled crops in a folder, from a person or from a rule.
//!
//! A folder with `ok` and `ng` has pictures in them, without mirror features and groups. A folder with `labels.jsonl`
//! has both: the file has one JSON object per line: `{"file": "0001.png", "ok": true, "group": "anna", "mirrored": 0.12,
//! "mirrored_head": 0.0, "mirrored_grid": [16 shares, row by row]}`. Paths are relative to the folder of the file. A
//! split never separates crops of one group (a person). A crop without a group is a group of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::example::Example;
use facemill_classifier::model::{self, MIRRORS};
use facemill_domain::ContentHash;

/// Name of the file in a folder of labelled crops.
pub const FILE: &str = "labels.jsonl";

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelledCrop {
    /// Path of the crop: relative in the file, joined with the folder after reading.
    pub file: PathBuf,
    pub ok: bool,
    /// The person, or another reason why crops are alike.
    #[serde(default)]
    pub group: Option<String>,
    /// Shares of mirrored pixels, 0 to 1: of the crop, of the head, of each cell of a 4x4 grid, row by row.
    pub mirrored: f64,
    pub mirrored_head: f64,
    pub mirrored_grid: Vec<f32>,
}

impl LabelledCrop {
    /// The mirror features, in the order of the model's input.
    ///
    /// # Errors
    /// The grid does not have 16 cells, or a share is not between 0 and 1.
    pub fn mirrors(&self) -> Result<[f32; MIRRORS], String> {
        model::mirrors(self.mirrored, self.mirrored_head, &self.mirrored_grid)
    }

    /// The crop with this content, for training. Without a group it is a group of its own.
    ///
    /// # Errors
    /// As [`LabelledCrop::mirrors`].
    pub fn example(&self, crop: ContentHash) -> Result<Example, String> {
        let group = self.group.clone().unwrap_or_else(|| crop.to_string());
        Ok(Example { crop, group, duplicates: None, ok: self.ok, mirrors: self.mirrors()?, importance: 1.0 })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("cannot read labels from {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{}:{line}: {detail}", path.display())]
    Line { path: PathBuf, line: usize, detail: String },
    #[error("{} has no labels", path.display())]
    Empty { path: PathBuf },
    #[error("{} has more than {MAX_CROPS} crops", path.display())]
    TooMany { path: PathBuf },
}

/// Longer lines are rejected.
const MAX_LINE: usize = 64 << 10;
/// So many crops, whose features take 1.3 GB of memory, are more than a head needs.
pub const MAX_CROPS: usize = 60_000;

/// Reads the labels at `path`: the file, a folder with `labels.jsonl`, or one with folders `ok` and `ng`. Empty lines
/// are skipped.
///
/// # Errors
/// The file cannot be read or has no labels, or a line is not a label or names a missing file. The error has the number
/// of the line.
pub fn read(path: &Path) -> Result<Vec<LabelledCrop>, LabelError> {
    let is_folder = path.is_dir();
    if is_folder && !path.join(FILE).exists() && path.join("ok").is_dir() && path.join("ng").is_dir() {
        return read_folders(path);
    }
    let path = if is_folder { path.join(FILE) } else { path.to_owned() };
    let unreadable = |cause| LabelError::Unreadable { path: path.clone(), cause };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut reader = BufReader::new(std::fs::File::open(&path).map_err(unreadable)?);
    let mut labels = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let limited = &mut std::io::Read::take(&mut reader, MAX_LINE as u64);
        if limited.read_until(b'\n', &mut text).map_err(unreadable)? == 0 {
            break;
        }
        if text.len() == MAX_LINE || !text.trim_ascii().is_empty() {
            let label = parse(&text, folder).map_err(|detail| LabelError::Line { path: path.clone(), line, detail })?;
            labels.push(label);
            if labels.len() > MAX_CROPS {
                return Err(LabelError::TooMany { path });
            }
        }
    }
    if labels.is_empty() { Err(LabelError::Empty { path }) } else { Ok(labels) }
}

/// The pictures in the folders `ok` and `ng`, by name. Nothing is known of their mirrored parts.
fn read_folders(path: &Path) -> Result<Vec<LabelledCrop>, LabelError> {
    const SUFFIXES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
    let mut labels = Vec::new();
    for (name, ok) in [("ng", false), ("ok", true)] {
        let folder = path.join(name);
        let unreadable = |cause| LabelError::Unreadable { path: folder.clone(), cause };
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            let suffix = file.extension().map(|suffix| suffix.to_string_lossy().to_lowercase()).unwrap_or_default();
            if !SUFFIXES.contains(&suffix.as_str()) || !file.is_file() {
                continue;
            }
            let [mirrored, mirrored_head] = [0.0; 2];
            let mirrored_grid = vec![0.0; 16];
            labels.push(LabelledCrop { file, ok, group: None, mirrored, mirrored_head, mirrored_grid });
            if labels.len() > MAX_CROPS {
                return Err(LabelError::TooMany { path: path.into() });
            }
        }
    }
    labels.sort_by(|a, b| a.file.cmp(&b.file));
    if labels.is_empty() { Err(LabelError::Empty { path: path.into() }) } else { Ok(labels) }
}

fn parse(text: &[u8], folder: &Path) -> Result<LabelledCrop, String> {
    if text.len() == MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} bytes"));
    }
    let label: LabelledCrop = serde_json::from_slice(text).map_err(|error| format!("not a label: {error}"))?;
    label.mirrors()?;
    let file = folder.join(&label.file);
    if !file.is_file() {
        return Err(format!("the file {} does not exist", file.display()));
    }
    Ok(LabelledCrop { file, ..label })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(file: &str) -> String {
        let grid = vec!["0.5"; 16].join(",");
        format!(r#"{{"file":"{file}","ok":true,"mirrored":0.5,"mirrored_head":0,"mirrored_grid":[{grid}]}}"#)
    }

    fn error(lines: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), "").unwrap();
        std::fs::write(folder.path().join(FILE), lines).unwrap();
        read(folder.path()).unwrap_err().to_string()
    }

    #[test]
    fn reads_a_folder_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), "").unwrap();
        std::fs::write(folder.path().join(FILE), format!("{}\n\n{}", label("a.png"), label("a.png"))).unwrap();
        let labels = read(folder.path()).unwrap();
        assert_eq!(labels.len(), 2);
        assert_eq!(labels, read(&folder.path().join(FILE)).unwrap());
        assert_eq!(labels[0].file, folder.path().join("a.png"));
        assert_eq!(labels[0].mirrors().unwrap()[..3], [0.5, 0.0, 0.5]);
    }

    #[test]
    fn reads_folders_of_pictures() {
        let folder = tempfile::tempdir().unwrap();
        for (name, files) in [("ok", &["a.png", "b.JPG", "note.txt"][..]), ("ng", &["c.webp"])] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            files.iter().for_each(|file| std::fs::write(folder.path().join(name).join(file), "").unwrap());
        }
        let labels = read(folder.path()).unwrap();
        let found =
            labels.iter().map(|label| (label.file.strip_prefix(folder.path()).unwrap().to_str().unwrap(), label.ok));
        assert_eq!(found.collect::<Vec<_>>(), [("ng/c.webp", false), ("ok/a.png", true), ("ok/b.JPG", true)]);
        let crop = ContentHash::of(b"");
        assert_eq!(labels[0].example(crop).unwrap().group, crop.to_string());
    }

    #[test]
    fn errors_name_the_line_and_the_reason() {
        let second = |line: String| error(&format!("{}\n{line}\n", label("a.png")));
        let missing = second(label("b.png"));
        assert!(missing.contains("labels.jsonl:2: ") && missing.contains("b.png"), "{missing}");
        let short = second(label("a.png").replace("[0.5,", "["));
        assert!(short.contains(":2: mirrored_grid has 15 values"), "{short}");
        let large = second(label("a.png").replace(r#""mirrored":0.5"#, r#""mirrored":1.5"#));
        assert!(large.contains(":2: ") && large.contains("1.5"), "{large}");
        let unlabelled = second(label("a.png").replace(r#""ok":true,"#, ""));
        assert!(unlabelled.contains(":2: ") && unlabelled.contains("`ok`"), "{unlabelled}");
        assert!(error("").contains("has no labels"));
        assert!(error(&" ".repeat(MAX_LINE + 1)).contains(":1: "));
    }
}
