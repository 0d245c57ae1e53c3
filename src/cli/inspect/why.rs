//! `facemill why`.

use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::{Id, PhotoKey};
use crate::services::story::Story;
use crate::verdicts::VerdictLog;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The photo's id in the source database
    photo_id: String,
    /// Where Jaeger is, for a link to the photo's trace: http://jaeger:16686
    #[arg(long, env = "FACEMILL_JAEGER_URL", value_name = "URL")]
    jaeger: Option<String>,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let story = crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        let key = PhotoKey { run: place.run.clone(), photo_id: Id::new(args.photo_id.as_str()) };
        let story = Story::read(&key, &*place.ledger, place.records.as_ref(), args.jaeger.as_deref()).await;
        let unknown = || Failure::findings(format!("run {} has no photo {}", key.run, key.photo_id));
        let story = story.map_err(Failure::broken)?.ok_or_else(unknown)?;
        let log = VerdictLog::new(place.objects.clone(), place.run.clone());
        story.with_verdicts(&log).await.map_err(Failure::broken)
    })?;
    if args.place.json { print_json(&story) } else { print_text(&story.text()) }?;
    Ok(ExitCode::SUCCESS)
}
