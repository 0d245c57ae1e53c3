//! `facemill candidates`.

use super::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::broken("candidates is not there yet"))
}
