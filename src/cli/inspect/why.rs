//! `facemill why`.

use std::process::ExitCode;

use crate::cli::dataset::index::IndexArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, first_lines, print_json, print_note, print_text};
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::{Id, PhotoKey};
use crate::services::photos_at::photos_at;
use crate::services::run_target::RunTarget;
use crate::services::story::Story;
use crate::verdicts::VerdictLog;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The photo's id in the source database, or its URL: https://photos.example/4711.jpg
    #[arg(value_name = "PHOTO_ID")]
    photo: String,
    /// Where Jaeger is, for a link to the photo's trace: http://jaeger:16686
    #[arg(long, env = "FACEMILL_JAEGER_URL", value_name = "URL")]
    jaeger: Option<String>,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

impl Args {
    /// The id of the photo. Where several photos have the URL, the first one, and a note names the others.
    async fn photo_id(&self, place: &RunTarget) -> Result<Id, Failure> {
        if !["http://", "https://"].iter().any(|scheme| self.photo.starts_with(scheme)) {
            return Ok(Id::new(self.photo.as_str()));
        }
        let (mut index, source) = self.index.open(place)?;
        let found = photos_at(&self.photo, &mut index, &source).await.map_err(Failure::broken)?;
        let Some((first, others)) = found.split_first() else {
            return Err(Failure::findings(format!("run {} has no photo with the URL {}", place.run, self.photo)));
        };
        if !others.is_empty() {
            let ids = first_lines(others.iter().map(|id| format!("  {id}\n")), "photos");
            print_note(format_args!("{} more with this URL:\n{ids}", counted(others.len() as u64, "photo")));
        }
        Ok(first.clone())
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let story = crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        let key = PhotoKey { run: place.run.clone(), photo_id: args.photo_id(&place).await? };
        let story = Story::read(&key, &*place.ledger, place.records.as_ref(), args.jaeger.as_deref()).await;
        let unknown = || Failure::findings(format!("run {} has no photo {}", key.run, key.photo_id));
        let story = story.map_err(Failure::broken)?.ok_or_else(unknown)?;
        let log = VerdictLog::new(place.objects.clone(), place.run.clone());
        let known = args.index.stored_verdicts(&place, &story);
        story.with_verdicts(&log, known).await.map_err(Failure::broken)
    })?;
    if args.place.json { print_json(&story) } else { print_text(&story.text()) }?;
    Ok(ExitCode::SUCCESS)
}
