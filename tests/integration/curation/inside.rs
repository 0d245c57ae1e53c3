//! A server in the process of the test.

use std::path::Path;
use std::sync::Arc;

use facemill::curation::access::{Access, AccessSettings};
use facemill::curation::{Curation, CurationError, CurationSettings, FeatureSettings};
use facemill::objects::Objects;
use facemill::pipeline::local::RunDir;
use facemill::services::run_target::RunTarget;
use support::curation::CuratedRun;

use super::client::ApiClient;

/// A server of a run in a folder, for one person. `name` is also that of its index.
pub async fn open(
    run: &CuratedRun,
    objects: Arc<dyn Objects>,
    name: &str,
) -> Result<(Curation, ApiClient), CurationError> {
    let mut target = RunTarget::of_folder(RunDir::at(run.path())).await.unwrap();
    target.objects = objects;
    let person = AccessSettings::local_person(Some(name.to_owned()));
    let access = AccessSettings { local: Some(person), proxies: Default::default(), header: None };
    let access = Access::open(run.objects.clone(), access).await.unwrap();
    let curation = Curation::open(&target, settings(run.path(), name, access), &drop).await?;
    let client = ApiClient::inside(curation.router());
    Ok((curation, client))
}

fn settings(folder: &Path, name: &str, access: Access) -> CurationSettings {
    CurationSettings {
        index: folder.join(format!("{name}.sqlite")),
        wanted: 10_000,
        jaeger: Some("http://jaeger:16686".into()),
        thumbnails: folder.join("thumbnails"),
        thumbnail_bytes: 10 << 20,
        access,
        features: FeatureSettings {
            models: crate::classifier::models(),
            store: folder.join(format!("{name}-features.sqlite")),
            most_bytes: 100 << 20,
        },
    }
}
