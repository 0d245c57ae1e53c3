//! `facemill doctor`.

use super::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::broken("doctor is not there yet"))
}
