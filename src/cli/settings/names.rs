//! The names that flags take for the enums of the domain, with their help.

use std::fmt::Debug;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::domain::{Align, FacePolicy, Fill, LandmarkScheme, Search};

pub fn search() -> impl TypedValueParser<Value = Search> {
    parser([
        (Search::Guided.as_str(), "YuNet once, then dlib on an upright region of interest"),
        (Search::Full.as_str(), "The published method: dlib on nine rotations of the whole photo"),
    ])
}

pub fn landmarks() -> impl TypedValueParser<Value = LandmarkScheme> {
    parser([
        (LandmarkScheme::Ibug.as_str(), "dlib's model, trained on iBUG 300-W: no commercial use"),
        (LandmarkScheme::Permissive.as_str(), "MediaPipe's face mesh, under Apache-2.0"),
    ])
}

pub fn face_policy() -> impl TypedValueParser<Value = FacePolicy> {
    parser([
        (FacePolicy::One.as_str(), "Photos with several faces are rejected"),
        (FacePolicy::Largest.as_str(), "The largest face is taken"),
    ])
}

pub fn align() -> impl TypedValueParser<Value = Align> {
    parser([
        (Align::Paper.as_str(), "Level on the eyes (Karras et al., arXiv 1710.10196, appendix C)"),
        (Align::Ffhq.as_str(), "Level on eyes and mouth together, as the FFHQ dataset"),
        (Align::Seed.as_str(), "As the original scripts, for comparison only"),
    ])
}

pub fn fill() -> impl TypedValueParser<Value = Fill> {
    parser([
        (Fill::Mirror.as_str(), "The photo is mirrored at its edge"),
        (Fill::Ffhq.as_str(), "As the FFHQ dataset: reflected, blurred outwards, fading to the median colour"),
    ])
}

fn parser<T, const N: usize>(names: [(&'static str, &'static str); N]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Debug + Send + Sync + 'static,
{
    let values = names.map(|(name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<T>())
}
