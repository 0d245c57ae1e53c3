//! What a user pays for a photo: `make bench-run [FOLDERS="a b"] [ARGS="--rounds 3"]`.
//!
//! Runs whole processes on photos that a web server of this program serves: `facemill run`, the same with the original
//! method's full search, the four workers on real servers, and a Python script that does what the published article
//! describes. They take turns, so that a change of the machine's speed meets all of them. CPU time is user and system
//! time of all threads of our processes; that of RabbitMQ, Redis, the S3 server and the web server is not counted.

mod photos;
mod processes;
mod published;
mod workers;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use serde::Serialize;
use support::reference::package_photos;

use photos::Photos;
use processes::{Cost, finish};
use published::Published;

#[derive(Debug, Parser)]
struct Args {
    /// Folders of photos; without one, the sample photographs.
    #[arg(long, num_args = 1..)]
    photos: Vec<PathBuf>,

    /// Takes only N of the photos, spread evenly over their names.
    #[arg(long)]
    limit: Option<usize>,

    #[arg(long, default_value_t = 1)]
    rounds: usize,

    /// The program to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_facemill"))]
    program: PathBuf,

    /// The Python interpreter of the published method, with dlib, OpenCV and numpy.
    #[arg(long, default_value = "python3")]
    python: PathBuf,

    /// The published method's answers for the photos, one JSON object a line, to compare its script with.
    #[arg(long)]
    reference: Option<PathBuf>,

    /// Leaves parts out.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<Part>,

    #[arg(long)]
    json: bool,

    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Full,
    Workers,
    Published,
}

/// What one kind of processing costs.
#[derive(Debug, Serialize)]
struct Figures {
    what: String,
    /// CPU time a photo without the start of the processes, in milliseconds.
    ms: f64,
    /// CPU time of the start of the processes, in seconds.
    startup: f64,
    /// The largest memory of a process, in bytes.
    peak: u64,
    /// Bytes in the output a photo: originals, faces and records. None: it is on a server.
    written: Option<f64>,
    /// Photos a second of wall time.
    rate: f64,
    faces: usize,
}

impl Figures {
    /// `one`: a process with a single photo.
    fn of(what: &str, photos: usize, one: Cost, all: &[Cost], written: Option<u64>, faces: usize) -> Self {
        let cpu = all.iter().map(|cost| cost.cpu).sum::<f64>() / all.len() as f64;
        let wall = all.iter().map(|cost| cost.wall).sum::<f64>() / all.len() as f64;
        let a_photo = (cpu - one.cpu) / (photos - 1) as f64;
        Self {
            what: what.into(),
            ms: 1000.0 * a_photo,
            startup: one.cpu - a_photo,
            peak: all.iter().map(|cost| cost.peak).max().unwrap_or(0),
            written: written.map(|bytes| bytes as f64 / photos as f64),
            rate: photos as f64 / wall,
            faces,
        }
    }
}

fn main() {
    let mut args = Args::parse();
    if args.photos.is_empty() {
        args.photos.push(package_photos());
    }
    let photos = Photos::serve(&args.photos, args.limit);
    assert!(photos.count() > 1, "there are fewer than two photos in {:?}", args.photos);
    let figures = measure(&args, &photos);
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&figures).expect("JSON")),
        false => print(&figures, photos.count()),
    }
}

fn measure(args: &Args, photos: &Photos) -> Vec<Figures> {
    let does = |part: Part| !args.skip.contains(&part);
    let searches: Vec<&str> = if does(Part::Full) { vec!["guided", "full"] } else { vec!["guided"] };
    let published = does(Part::Published).then(|| Published::find(&args.python)).flatten();
    let mut installation = does(Part::Workers).then(workers::Installation::start);
    let ones: Vec<Cost> = searches.iter().map(|search| run(args, photos, search, true).cost).collect();
    let mut runs: Vec<Vec<Run>> = searches.iter().map(|_| Vec::new()).collect();
    let mut answers = Vec::new();
    let mut stages = Vec::new();
    for round in 0..args.rounds {
        for (search, of_search) in searches.iter().zip(&mut runs) {
            of_search.push(run(args, photos, search, false));
        }
        if let Some(installation) = &mut installation {
            stages.push(installation.measure(&args.program, photos, round));
        }
        if let Some(published) = &published {
            answers.push(published.answer(photos, args.reference.as_deref()));
        }
    }

    let mut figures = Vec::new();
    for ((search, one), of_search) in searches.iter().zip(ones).zip(&runs) {
        let costs: Vec<Cost> = of_search.iter().map(|run| run.cost).collect();
        let last = of_search.last().expect("a round");
        let what = format!("run --search {search}");
        figures.push(Figures::of(&what, photos.count(), one, &costs, Some(last.written), last.faces));
    }
    figures.extend(workers::figures(&stages, photos.count()));
    figures.extend(published::figures(&answers, photos.count()));
    figures
}

struct Run {
    cost: Cost,
    written: u64,
    faces: usize,
}

fn run(args: &Args, photos: &Photos, search: &str, is_one: bool) -> Run {
    let scratch = tempfile::tempdir().expect("a folder");
    let out = scratch.path().join("out");
    let mut command = Command::new(&args.program);
    command.arg("run").arg(photos.list()).arg("--out").arg(&out).args(["--search", search]);
    command.args(photos.stage_arguments()).env("XDG_CACHE_HOME", scratch.path());
    if is_one {
        command.args(["--limit", "1"]);
    }
    let cost = finish(&mut command);
    Run { cost, written: bytes_under(&out), faces: files_under(&out.join("faces")) }
}

/// The files below a folder.
fn walk(folder: &Path, visit: &mut impl FnMut(&std::fs::Metadata)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), visit);
        } else {
            visit(&metadata);
        }
    }
}

fn bytes_under(folder: &Path) -> u64 {
    let mut bytes = 0;
    walk(folder, &mut |file| bytes += file.len());
    bytes
}

fn files_under(folder: &Path) -> usize {
    let mut files = 0;
    walk(folder, &mut |_| files += 1);
    files
}

fn print(figures: &[Figures], photos: usize) {
    const MEGABYTE: f64 = 1e6;
    println!("{photos} photos; CPU time without the start of the processes");
    println!(
        "{:<24} {:>11} {:>11} {:>9} {:>9} {:>12} {:>9} {:>6}",
        "", "ms a photo", "published /", "start s", "peak MB", "MB a photo", "photos/s", "faces"
    );
    let published = figures.iter().find(|figures| figures.what == published::NAME).map(|figures| figures.ms);
    for Figures { what, ms, startup, peak, written, rate, faces } in figures {
        let ratio = published.map_or("-".into(), |published| format!("{:.1}", published / ms));
        let written = written.map_or("-".into(), |bytes| format!("{:.2}", bytes / MEGABYTE));
        let peak = *peak as f64 / MEGABYTE;
        println!("{what:<24} {ms:>11.1} {ratio:>11} {startup:>9.2} {peak:>9.0} {written:>12} {rate:>9.2} {faces:>6}");
    }
}
