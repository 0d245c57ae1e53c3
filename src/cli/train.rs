//! `facemill train`.

use super::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<std::process::ExitCode, Failure> {
    Err(Failure::broken("train is not there yet"))
}
