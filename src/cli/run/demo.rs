//! `facemill demo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::again::this_command;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_text};
use crate::cli::process::Signals;
use crate::cli::run;
use crate::cli::settings::process_args::ProcessArgs;
use crate::demo::{self, host::WebHost};
use crate::net::Rules;
use crate::retry::{ATTEMPTS, Waits};
use crate::source::{self, Input};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with photographs and their list, photos.tsv
    #[arg(long, default_value = ".cache/photos", value_name = "DIR")]
    photos: PathBuf,
    /// Only serves the collection at this address until Ctrl-C or SIGTERM, for the workers of an installation
    #[arg(long, value_name = "ADDRESS:PORT")]
    serve: Option<SocketAddr>,
    #[command(flatten)]
    process: ProcessArgs,
}

pub fn run(mut args: Args) -> Result<ExitCode, Failure> {
    if let Some(address) = args.serve {
        return crate::cli::process::block_on(serve(&args, address));
    }
    let stages = &mut args.process.stages;
    if stages.waits == Waits::default() && stages.attempts == ATTEMPTS {
        // The host is in this process and recovers fast.
        stages.waits = Waits::short();
        stages.attempts = stages.waits.attempts();
    }
    let mut settings = args.process.settings()?;
    if let Some(missing) = settings.models.missing(settings.given.scheme(None)) {
        return Err(Failure::broken(format!("there is no {}: `make setup` fetches the models", missing.display())));
    }
    let (bars, _telemetry) = run::begin(&args.process)?;
    crate::cli::process::block_on(async {
        let demo = demo::prepare(&args.photos, &args.process.out).await.map_err(Failure::broken)?;
        // The host names of the demonstration and their address are permitted in addition to the user's.
        settings.rules = Rules {
            contact: settings.rules.contact.take(),
            max_bytes: settings.rules.max_bytes,
            max_memory: settings.rules.max_memory,
            per_host: settings.rules.per_host,
            max_requests: settings.rules.max_requests,
            ..rules(&demo.host)
        };
        let candidates = source::candidates(&Input::File(demo.dump.clone()), &source::Options::default(), &mut |_| ())
            .map_err(Failure::broken)?;
        let place = demo.dump.display();
        if !args.process.json() {
            print_text(&format!(
                "{place}: {}, served by this process\n",
                counted(demo.candidates as u64, "candidate")
            ))?;
        }
        let code =
            run::execute(run::Photos { candidates, folder: None }, settings, &args.process, &bars, &this_command())
                .await;
        demo.host.stop().await;
        code
    })
}

async fn serve(args: &Args, address: SocketAddr) -> Result<ExitCode, Failure> {
    let signals = Signals::catch();
    let listen = address.to_string();
    let demo = demo::prepare_at(&args.photos, &args.process.out, &listen).await.map_err(Failure::broken)?;
    let (dump, hosts) = (demo.dump.display(), demo::scene::HOSTS.join(", "));
    print_text(&format!(
        "{dump}: {}, served on {} as {hosts}\n",
        counted(demo.candidates as u64, "candidate"),
        demo.host.address()
    ))?;
    signals.shutdown.cancelled().await;
    demo.host.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Rules that resolve the demonstration's names to its host, and allow no other private address. Short time limits and no
/// spacing, since the host is local. All others are the defaults.
fn rules(host: &WebHost) -> Rules {
    Rules {
        hosts: demo::scene::HOSTS.into_iter().map(|name| (name.to_owned(), host.address())).collect(),
        allowed: [host.address()].into(),
        spacing: Duration::ZERO,
        connect: Duration::from_secs(2),
        first_byte: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        total: Duration::from_secs(6),
        ..Rules::default()
    }
}
