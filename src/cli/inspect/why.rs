//! `facemill why`.

use std::process::ExitCode;

use crate::cli::dataset::index::IndexArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, first_lines, print_json, print_note, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::reading::ReadingArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::cli::settings::source_arg::SourceArg;
use crate::domain::{Id, PhotoKey};
use crate::services::photos_at::photos_at;
use crate::services::run_target::RunTarget;
use crate::services::story::Story;
use crate::services::why_not::why_not;
use crate::source::AskedPhoto;
use crate::verdicts::VerdictLog;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The photo's id in the source database, or its URL: https://photos.example/4711.jpg
    #[arg(value_name = "PHOTO_ID")]
    photo: String,
    /// The source of the run, for a photo that the run does not have: says why not. A file, a folder with photos,
    /// s3://BUCKET/KEY, s3://BUCKET/PREFIX/, or `-` for standard input
    #[arg(value_parser = SourceArg::parser(), value_name = "SOURCE")]
    source: Option<SourceArg>,
    /// Where Jaeger is, for a link to the photo's trace: http://jaeger:16686
    #[arg(long, env = "FACEMILL_JAEGER_URL", value_name = "URL")]
    jaeger: Option<String>,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

impl Args {
    /// The id of the photo; none if the run has no photo with its URL. Where several photos have the URL, the first
    /// one, and a note names the others.
    async fn photo_id(&self, place: &RunTarget) -> Result<Option<Id>, Failure> {
        if !["http://", "https://"].iter().any(|scheme| self.photo.starts_with(scheme)) {
            return Ok(Some(Id::new(self.photo.as_str())));
        }
        let (mut index, source) = self.index.open(place)?;
        let found = photos_at(&self.photo, &mut index, &source).await.map_err(Failure::broken)?;
        let Some((first, others)) = found.split_first() else { return Ok(None) };
        if !others.is_empty() {
            let ids = first_lines(others.iter().map(|id| format!("  {id}\n")), "photos");
            print_note(format_args!("{} more with this URL:\n{ids}", counted(others.len() as u64, "photo")));
        }
        Ok(Some(first.clone()))
    }

    async fn story(&self, place: &RunTarget) -> Result<Option<Story>, Failure> {
        let Some(photo_id) = self.photo_id(place).await? else { return Ok(None) };
        let key = PhotoKey { run: place.run.clone(), photo_id };
        let story = Story::read(&key, &*place.ledger, place.records.as_ref(), self.jaeger.as_deref()).await;
        let Some(story) = story.map_err(Failure::broken)? else { return Ok(None) };
        let log = VerdictLog::new(place.objects.clone(), place.run.clone());
        let known = self.index.stored_verdicts(place, &story);
        story.with_verdicts(&log, known).await.map(Some).map_err(Failure::broken)
    }

    /// Says why the run does not have the photo.
    async fn absence(&self, place: &RunTarget) -> Result<Failure, Failure> {
        let (photo, run) = (&self.photo, &place.run);
        let Some(source) = &self.source else {
            return Ok(Failure::findings(format!(
                "run {run} has no photo {photo}: `facemill why {photo} SOURCE` reads the run's source and says why"
            )));
        };
        let mut options = self.reading.options(None)?;
        let asked = AskedPhoto::new(photo.strip_prefix(&options.id_prefix).unwrap_or(photo));
        options.asked = Some(asked.clone());
        let s3 = || self.place.servers.s3.service().map_err(Failure::broken);
        let candidates = source.clone().candidates(s3, options, &Bars::new(!self.place.json)).await?;
        let why_not = why_not(place, &asked, &Id::new(photo.as_str()), &candidates).await.map_err(Failure::broken)?;
        if self.place.json {
            print_json(&why_not)?;
        }
        Ok(Failure::findings(format!("run {run} has no photo {photo}: {why_not}")))
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let story = crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        match args.story(&place).await? {
            Some(story) => Ok(story),
            None => Err(args.absence(&place).await?),
        }
    })?;
    if args.place.json { print_json(&story) } else { print_text(&story.text()) }?;
    Ok(ExitCode::SUCCESS)
}
