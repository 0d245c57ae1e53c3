//! The settings that shape the crops of a run: `runs/RUN/settings.json`.
//!
//! The first command of a run fixes them, because crops of different shapes ruin a training set.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{JSON, decode, encode, optional};
use crate::domain::{Align, ContentHash, FacePolicy, Fill, ImageFormat, LandmarkScheme, RunName, Search};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent};

/// The settings that shape the crops of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunSettings {
    pub search: Search,
    /// Runs of earlier versions name none.
    #[serde(default)]
    pub landmarks: LandmarkScheme,
    pub faces: FacePolicy,
    /// The smallest accepted width of a face, in pixels.
    pub min_face: u32,
    pub align: Align,
    pub fill: Fill,
    pub image_format: ImageFormat,
    /// The largest accepted photo, in millions of pixels.
    pub max_megapixels: u64,
    /// SHA-256 of the landmark model's file.
    pub landmark_model: ContentHash,
}

impl RunSettings {
    const WITHOUT_FLAG: [&str; 1] = ["landmark-model"];

    /// The settings by name, as their flags are called.
    pub fn by_name(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// Whether a run with the other settings finds the same faces in the same photos. The crops may differ.
    pub fn find_the_same_faces_as(&self, other: &Self) -> bool {
        let detect = |settings: &Self| {
            let Self { search, landmarks, faces, min_face, max_megapixels, landmark_model, .. } = *settings;
            let Self { align: _, fill: _, image_format: _, .. } = *settings;
            (search, landmarks, faces, min_face, max_megapixels, landmark_model)
        };
        detect(self) == detect(other)
    }

    /// The settings in which `given` differs from these.
    pub fn differences(&self, given: &Self) -> Vec<Difference> {
        let given = given.by_name();
        let differing = self.by_name().into_iter().filter(|(name, stored)| given.get(name) != Some(stored));
        differing
            .map(|(name, stored)| {
                let given = given.get(&name).map(plain).unwrap_or_default();
                Difference { setting: name, stored: plain(&stored), given }
            })
            .collect()
    }
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A setting of a run that has another value now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name, as the flag is called.
    pub setting: String,
    pub stored: String,
    pub given: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = if RunSettings::WITHOUT_FLAG.contains(&self.setting.as_str()) { "" } else { "--" };
        write!(f, "{flag}{} {} (now {})", self.setting, self.stored, self.given)
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum RunSettingsError {
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(
        "run {run} was started with {}: use these values, or start another run",
        differences.iter().map(Difference::to_string).collect::<Vec<_>>().join(", ")
    )]
    Differ { run: RunName, differences: Vec<Difference> },
}

/// The settings of runs in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredRunSettings {
    objects: Arc<dyn Objects>,
}

impl StoredRunSettings {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    fn key(run: &RunName) -> ObjectKey {
        ObjectKey::of_run(run, "settings")
    }

    /// None: the run has no settings yet.
    pub async fn read(&self, run: &RunName) -> Result<Option<RunSettings>, ObjectError> {
        let key = Self::key(run);
        match optional(self.objects.get(&key).await)? {
            Some(body) => decode(&key, &body).map(Some),
            None => Ok(None),
        }
    }

    /// Stores `proposed` if the run has no settings, and returns the settings of the run.
    pub async fn fix(&self, run: &RunName, proposed: &RunSettings) -> Result<RunSettings, ObjectError> {
        let key = Self::key(run);
        match self.objects.put_if_absent(&key, encode(&key, proposed)?, JSON).await? {
            PutIfAbsent::Created => Ok(proposed.clone()),
            PutIfAbsent::AlreadyThere => decode(&key, &self.objects.get(&key).await?),
        }
    }

    /// Starts or continues a run with `given`.
    ///
    /// # Errors
    /// [`RunSettingsError::Differ`]: the run was started with other settings.
    pub async fn agree(&self, run: &RunName, given: &RunSettings) -> Result<(), RunSettingsError> {
        let differences = self.fix(run, given).await?.differences(given);
        match differences.is_empty() {
            true => Ok(()),
            false => Err(RunSettingsError::Differ { run: run.clone(), differences }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn settings() -> RunSettings {
        RunSettings {
            search: Search::Guided,
            landmarks: LandmarkScheme::Ibug,
            faces: FacePolicy::One,
            min_face: 80,
            align: Align::Paper,
            fill: Fill::Mirror,
            image_format: ImageFormat::Png,
            max_megapixels: 50,
            landmark_model: ContentHash::of(b"landmarks"),
        }
    }

    #[tokio::test]
    async fn the_first_settings_of_a_run_are_fixed() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredRunSettings::new(Arc::new(Folder::at(scratch.path())));
        let (run, other) = (RunName::default(), "other".parse().unwrap());
        assert_eq!(stored.read(&run).await.unwrap(), None);
        stored.agree(&run, &settings()).await.unwrap();
        stored.agree(&run, &settings()).await.unwrap();
        let changed = RunSettings { align: Align::Ffhq, min_face: 90, ..settings() };
        let error = stored.agree(&run, &changed).await.unwrap_err().to_string();
        assert!(
            error.contains("run default was started with --align paper (now ffhq), --min-face 80 (now 90)"),
            "{error}"
        );
        assert_eq!(stored.fix(&run, &changed).await.unwrap(), settings());
        stored.agree(&other, &changed).await.unwrap();
        assert_eq!(stored.read(&other).await.unwrap(), Some(changed));
    }

    /// A run that was started before there were schemes has dlib's landmarks, and continues with these only.
    #[tokio::test]
    async fn settings_without_a_landmark_scheme_are_ibug() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let (stored, run) = (StoredRunSettings::new(objects.clone()), RunName::default());
        let mut earlier = settings().by_name();
        assert_eq!(earlier.remove("landmarks"), Some(Value::from("ibug")));
        let key = StoredRunSettings::key(&run);
        objects.put(&key, serde_json::to_vec(&earlier).unwrap().into(), JSON).await.unwrap();
        stored.agree(&run, &settings()).await.unwrap();
        let permissive = RunSettings { landmarks: LandmarkScheme::Permissive, ..settings() };
        let error = stored.agree(&run, &permissive).await.unwrap_err().to_string();
        assert!(error.contains("--landmarks ibug (now permissive)"), "{error}");
        assert!(!settings().find_the_same_faces_as(&permissive));
    }

    #[tokio::test]
    async fn settings_of_a_later_version_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let (stored, run) = (StoredRunSettings::new(objects.clone()), RunName::default());
        let mut later = settings().by_name();
        later.insert("shear".into(), Value::from(1));
        let key = StoredRunSettings::key(&run);
        objects.put(&key, serde_json::to_vec(&later).unwrap().into(), JSON).await.unwrap();
        let error = stored.agree(&run, &settings()).await.unwrap_err().to_string();
        assert!(error.contains(key.as_str()) && error.contains("shear"), "{error}");
    }
}
