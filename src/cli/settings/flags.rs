//! The flags of the stages, the same for every command that runs stages.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::Args;

use crate::archive::run_settings::RunSettings;
use crate::cli::failure::Failure;
use crate::cli::settings::host_entry::{HostEntry, MAX_PER_HOST, MAX_SPACING};
use crate::cli::settings::names;
use crate::domain::{Align, FacePolicy, Fill, ImageFormat, LandmarkScheme, Search};
use crate::inference::Models;
use crate::net::Rules;
use crate::net::host_rules::HostTable;
use crate::pipeline::originals;
use crate::pipeline::run_shapes::GivenSettings;
use crate::pipeline::stages;
use crate::pipeline::stored_photos::StoredAccess;
use crate::retry::{self, Waits};

/// The settings that shape the crops of a run. They are fixed when the run starts; a flag that is missing later is taken
/// from the run. So the defaults are in the text of the help, not in the flags.
#[derive(Debug, Clone, Args)]
pub struct FaceArgs {
    /// How the face is searched for: guided is fast, full is the published method [default: guided]
    #[arg(long, env = "FACEMILL_SEARCH", value_parser = names::search(), help_heading = "Faces")]
    search: Option<Search>,
    /// The model of the landmarks: ibug may not be used commercially; do not mix models in one dataset [default: ibug]
    #[arg(long, env = "FACEMILL_LANDMARKS", value_parser = names::landmarks(), help_heading = "Faces")]
    landmarks: Option<LandmarkScheme>,
    /// What happens to a photo with several faces: it is rejected, or its largest face is taken [default: one]
    #[arg(long, env = "FACEMILL_FACES", value_parser = names::face_policy(), help_heading = "Faces")]
    faces: Option<FacePolicy>,
    /// Minimum width of a face in pixels, measured on dlib's box [default: 80]
    #[arg(long, env = "FACEMILL_MIN_FACE", value_name = "PIXELS", help_heading = "Faces")]
    min_face: Option<u32>,
    /// How the crop is placed around the face; do not mix alignments in one dataset [default: paper]
    #[arg(long, env = "FACEMILL_ALIGN", value_parser = names::align(), help_heading = "Faces")]
    align: Option<Align>,
    /// What fills the crop beyond the edge of the photo; do not mix fills in one dataset [default: mirror]
    #[arg(long, env = "FACEMILL_FILL", value_parser = names::fill(), help_heading = "Faces")]
    fill: Option<Fill>,
    /// Image format of the crops [default: png]
    #[arg(long, env = "FACEMILL_IMAGE_FORMAT", value_enum, help_heading = "Faces")]
    image_format: Option<CropFormat>,
    /// Larger photos are rejected [default: 50]
    #[arg(long, env = "FACEMILL_MAX_MEGAPIXELS", value_name = "N", help_heading = "Faces")]
    max_megapixels: Option<u64>,
}

/// Settings that shape the crops of a run that is made from another one, whose settings count where a flag is missing.
/// So neither the environment nor a settings file sets them.
#[derive(Debug, Clone, Args)]
pub struct NewFaceArgs {
    /// How the face is searched for [default: as in the first run]
    #[arg(long, value_parser = names::search())]
    search: Option<Search>,
    /// The model of the landmarks [default: as in the first run]
    #[arg(long, value_parser = names::landmarks())]
    landmarks: Option<LandmarkScheme>,
    /// What happens to a photo with several faces [default: as in the first run]
    #[arg(long, value_parser = names::face_policy())]
    faces: Option<FacePolicy>,
    /// Minimum width of a face in pixels, measured on dlib's box [default: as in the first run]
    #[arg(long, value_name = "PIXELS")]
    min_face: Option<u32>,
    /// How the crop is placed around the face [default: as in the first run]
    #[arg(long, value_parser = names::align())]
    align: Option<Align>,
    /// What fills the crop beyond the edge of the photo [default: as in the first run]
    #[arg(long, value_parser = names::fill())]
    fill: Option<Fill>,
    /// Image format of the crops [default: as in the first run]
    #[arg(long, value_enum)]
    image_format: Option<CropFormat>,
    /// Larger photos are rejected [default: as in the first run]
    #[arg(long, value_name = "N")]
    max_megapixels: Option<u64>,
}

impl NewFaceArgs {
    /// What is given, and the rest of `base`.
    pub fn given(&self, base: &RunSettings) -> Result<GivenSettings, Failure> {
        let faults = shape_faults(self.max_megapixels, self.min_face);
        if !faults.is_empty() {
            return Err(Failure::settings(&faults));
        }
        Ok(GivenSettings {
            search: self.search.or(Some(base.search)),
            landmarks: self.landmarks.or(Some(base.landmarks)),
            faces: self.faces.or(Some(base.faces)),
            min_face: self.min_face.or(Some(base.min_face)),
            align: self.align.or(Some(base.align)),
            fill: self.fill.or(Some(base.fill)),
            image_format: self.image_format.map(Into::into).or(Some(base.image_format)),
            max_megapixels: self.max_megapixels.or(Some(base.max_megapixels)),
        })
    }
}

/// Settings of the stages.
#[derive(Debug, Clone, Args)]
pub struct StageArgs {
    #[command(flatten)]
    faces: FaceArgs,
    /// Attempts for a photo at each stage; with the defaults, a photo that fails every time has failed after 73 minutes
    #[arg(long, env = "FACEMILL_ATTEMPTS", default_value_t = retry::ATTEMPTS, value_name = "N", help_heading = "Work")]
    pub attempts: u32,
    /// Seconds to wait after the first, second, ... failed attempt; RabbitMQ rounds them up to 5, 30, 120, 600 or 3600
    #[arg(long, env = "FACEMILL_WAITS", default_value_t, value_name = "LIST", help_heading = "Work")]
    pub waits: Waits,
    /// Larger files are not fetched
    #[arg(long, env = "FACEMILL_MAX_MEGABYTES", default_value_t = 30, value_name = "N", help_heading = "Fetching")]
    max_megabytes: u64,
    /// Memory for all downloads together, in megabytes: at least --max-megabytes; further downloads wait
    #[arg(
        long,
        env = "FACEMILL_DOWNLOAD_MEGABYTES",
        default_value_t = 256,
        value_name = "N",
        help_heading = "Fetching"
    )]
    download_megabytes: u64,
    /// Requests to one host at a time, from all workers together
    #[arg(long, env = "FACEMILL_PER_HOST", default_value_t = 4, value_name = "N", help_heading = "Fetching")]
    per_host: usize,
    /// Milliseconds from the start of one request to a host to the start of the next: 0 only for hosts of your own
    #[arg(
        long,
        env = "FACEMILL_SPACING",
        default_value_t = 50,
        value_name = "MILLISECONDS",
        help_heading = "Fetching"
    )]
    spacing: u64,
    /// Settings of a host, as in [hosts."NAME"] of the settings file: 'photos.example={"per-host":64,"spacing":0}'; in
    /// the environment one a line
    #[arg(
        long,
        env = "FACEMILL_HOSTS",
        hide_env_values = true,
        value_delimiter = '\n',
        value_name = "NAME={...}",
        help_heading = "Fetching"
    )]
    hosts: Vec<String>,
    /// Contact for the user agent: a URL or an e-mail address
    #[arg(long, env = "FACEMILL_CONTACT", value_name = "WHO", help_heading = "Fetching")]
    contact: Option<String>,
    /// Time limit for the download of one photo, in seconds
    #[arg(long, env = "FACEMILL_TIMEOUT", default_value_t = 30, value_name = "SECONDS", help_heading = "Fetching")]
    timeout: u64,
    /// Resolves a host name without DNS: photos.test=127.0.0.1:8080. The address may be private
    #[arg(long, value_name = "NAME=ADDRESS:PORT", help_heading = "Fetching")]
    resolve: Vec<String>,
    /// Permits private addresses in URLs: for tests and intranets only
    #[arg(long, env = "FACEMILL_ALLOW_PRIVATE_ADDRESSES", help_heading = "Fetching")]
    allow_private_addresses: bool,
    /// Memory for all decoded images together, in megabytes: photos that need more are rejected, others wait
    #[arg(
        long,
        env = "FACEMILL_DECODE_MEGABYTES",
        default_value_t = originals::DECODE_MEMORY / 1_000_000,
        value_name = "N",
        help_heading = "Work"
    )]
    decode_megabytes: u64,
    #[command(flatten)]
    pub models: ModelArgs,
}

/// The folder of the models.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Folder with the models and onnxruntime [default: models, here or above the program]
    #[arg(long, env = Models::ENV, value_name = "DIR", help_heading = "Work")]
    models: Option<PathBuf>,
}

impl ModelArgs {
    pub fn find(&self) -> Models {
        Models::find(self.models.clone())
    }
}

/// The formats that crops can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CropFormat {
    Png,
    /// Quality 100
    Jpeg,
}

impl From<CropFormat> for ImageFormat {
    fn from(format: CropFormat) -> Self {
        match format {
            CropFormat::Png => Self::Png,
            CropFormat::Jpeg => Self::Jpeg,
        }
    }
}

fn shape_faults(max_megapixels: Option<u64>, min_face: Option<u32>) -> Vec<String> {
    let faults = [
        max_megapixels.and_then(|megapixels| out_of_range("max-megapixels", megapixels, 1, 1000)),
        min_face.and_then(|pixels| out_of_range("min-face", u64::from(pixels), 20, 10_000)),
    ];
    faults.into_iter().flatten().collect()
}

impl FaceArgs {
    pub fn faults(&self) -> Vec<String> {
        shape_faults(self.max_megapixels, self.min_face)
    }

    pub fn given(&self) -> GivenSettings {
        GivenSettings {
            search: self.search,
            landmarks: self.landmarks,
            faces: self.faces,
            min_face: self.min_face,
            align: self.align,
            fill: self.fill,
            image_format: self.image_format.map(Into::into),
            max_megapixels: self.max_megapixels,
        }
    }
}

impl StageArgs {
    /// Reports every fault, not only the first. `faults`: those that the caller has found. `cores`: how many photos a
    /// stage of native code processes at a time.
    pub fn settings(&self, cores: usize, mut faults: Vec<String>) -> Result<stages::StageSettings, Failure> {
        let mut between = |flag, value, least, most| faults.extend(out_of_range(flag, value, least, most));
        between("attempts", u64::from(self.attempts), 1, 100);
        between("max-megabytes", self.max_megabytes, 1, 1000);
        between("download-megabytes", self.download_megabytes, 1, 100_000);
        between("decode-megabytes", self.decode_megabytes, 16, 1_000_000);
        between("per-host", self.per_host as u64, 1, MAX_PER_HOST);
        between("spacing", self.spacing, 0, MAX_SPACING);
        between("timeout", self.timeout, 1, 3600);
        faults.extend(self.faces.faults());
        let usual = Rules::default();
        let (mut hosts, mut allowed) = (usual.hosts, usual.allowed);
        for entry in &self.resolve {
            match Rules::parse_host(entry) {
                Ok((name, address)) => {
                    hosts.insert(name, address);
                    allowed.insert(address);
                }
                Err(error) => faults.push(format!("--resolve {error}")),
            }
        }
        let mut host_rules = HostTable::default();
        for entry in self.hosts.iter().filter(|entry| !entry.trim().is_empty()) {
            match entry.parse() {
                Ok(HostEntry { name, rules }) => host_rules.insert(name, rules),
                // The settings may have a token.
                Err(error) => faults.push(format!("--hosts {}: {error}", entry.split('=').next().unwrap_or_default())),
            }
        }
        if !faults.is_empty() {
            return Err(Failure::settings(&faults));
        }
        let total = Duration::from_secs(self.timeout);
        Ok(stages::StageSettings {
            models: self.models.find(),
            cores,
            decode_memory: self.decode_megabytes * 1_000_000,
            rules: Rules {
                per_host: self.per_host,
                spacing: Duration::from_millis(self.spacing),
                host_rules,
                max_bytes: self.max_megabytes * 1_000_000,
                max_memory: self.download_megabytes * 1_000_000,
                contact: self.contact.clone(),
                hosts,
                allowed,
                total,
                connect: usual.connect.min(total),
                first_byte: usual.first_byte.min(total),
                idle: usual.idle.min(total),
                allow_private_addresses: self.allow_private_addresses,
                ..Rules::default()
            },
            stored_access: StoredAccess::default(),
            host_limiter: None,
            given: self.faces.given(),
        })
    }
}

/// The remedy for a number that is out of range.
pub fn out_of_range(flag: &str, value: u64, least: u64, most: u64) -> Option<String> {
    (!(least..=most).contains(&value)).then(|| format!("--{flag} {value}: expected {least} to {most}"))
}

/// The cores of this machine, as far as this process may use them.
pub fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::StageArgs;
    use crate::net::Rules;
    use crate::net::host_rules::HostTable;
    use crate::pipeline::worker;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        stages: StageArgs,
    }

    #[test]
    fn hosts_are_a_line_each_and_a_fault_tells_no_token() {
        let settings = |hosts: &str| Command::parse_from(["facemill", "--hosts", hosts]).stages.settings(1, Vec::new());
        let rules = settings("a.example={\"per-host\":8}\nb.example={\"spacing\":0}\n").unwrap().rules;
        assert_eq!(rules.host_rules.get("a.example").unwrap().per_host, Some(8));
        assert!(rules.host_rules.get("b.example").is_some());
        assert_eq!(settings("").unwrap().rules.host_rules, HostTable::default(), "an empty variable sets nothing");
        let fault = settings("a.example={\"headers\":{\"x\":\"hunter2\\n\"}}").err().unwrap().message;
        assert!(fault.contains("--hosts a.example: ") && !fault.contains("hunter2"), "{fault}");
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_code() {
        let stages = Command::parse_from(["facemill"]).stages;
        let (worker, rules) = (worker::WorkerSettings::default(), Rules::default());
        assert_eq!((stages.attempts, &stages.waits), (worker.attempts, &worker.waits));
        let settings = stages.settings(1, Vec::new()).unwrap();
        assert_eq!((settings.rules.max_bytes, settings.rules.max_memory), (rules.max_bytes, rules.max_memory));
        assert_eq!(settings.rules.paces(), rules.paces());
    }
}
