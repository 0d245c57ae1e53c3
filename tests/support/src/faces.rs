//! Synthetic faces, each determined by its number.

use facemill::domain::{
    Align, Candidate, ContentHash, Crop, Decoding, Face, Facts, Fill, Fingerprint, ImageFormat, LandmarkScheme,
    Original, Photo, Prediction, Quality, RunName, Search,
};

/// Pseudo-random numbers (SplitMix64, Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// 0 to 1, rounded as the stages round.
    fn share(&mut self) -> f64 {
        self.below(10_000) as f64 / 10_000.0
    }
}

/// The model of the predictions of [`photo`].
pub const MODEL: &str = "facemill-okng-1";

/// The prediction of a model; the file of the model has its name as content.
pub fn prediction(p_ok: f64, model: &str) -> Prediction {
    Prediction { p_ok, model: model.into(), model_sha256: ContentHash::of(model.as_bytes()) }
}

/// A photo with a face, and mostly with a prediction. Some values repeat over photos, some are missing.
pub fn photo(id: u64) -> Photo {
    let mut random = Random::new(id);
    let candidate = Candidate {
        photo_id: (id as i64).into(),
        face_id: (10 * id as i64).into(),
        label_id: (random.below(500) as i64).into(),
        label_name: (random.below(20) > 0).then(|| format!("Person O'{}", random.below(40))),
        photo_url: format!("https://host{}.example/{id}.jpg", random.below(12)),
        source_url: id.is_multiple_of(2).then(|| format!("https://blog.example/{id}")),
        posted_at: (random.below(9) > 0).then(|| format!("2015-01-{:02} 03:04:05", 1 + random.below(28))),
        source: None,
        columns: Default::default(),
    };
    let mut photo = Photo::new(RunName::default(), candidate);
    photo.facts = Facts {
        mended_url: None,
        opt_out: id.is_multiple_of(5).then(|| format!("tdm-reservation: {}", 1 + id % 3)),
        original: Some(Original {
            sha256: ContentHash::of(format!("original {id}").as_bytes()),
            bytes: 20_000 + random.below(1 << 20),
            format: ImageFormat::Jpeg,
        }),
        decoding: id.is_multiple_of(7).then(|| Decoding {
            damaged: id.is_multiple_of(2).then(|| "CRC error".to_owned()),
            profile: Some("Display P3".into()),
            profile_ignored: None,
        }),
        face: Some(Face {
            width: 900 + random.below(1000) as u32,
            height: 1200,
            angle: random.share() * 90.0 - 45.0,
            score: random.share() * 3.0,
            landmarks: vec![[1.0, 2.0]; 68],
            landmark_scheme: if id.is_multiple_of(7) { LandmarkScheme::Permissive } else { LandmarkScheme::Ibug },
            faces: 1 + random.below(3) as u32,
            search: if random.below(10) == 0 { Search::Full } else { Search::Guided },
        }),
        crop: Some(Crop {
            sha256: ContentHash::of(format!("crop {id}").as_bytes()),
            format: ImageFormat::Png,
            align: Align::ALL[random.below(3) as usize],
            fill: if id.is_multiple_of(3) { Fill::Ffhq } else { Fill::Mirror },
            angle: random.share() * 90.0 - 45.0,
            centre: [random.share() * 900.0, random.share() * 1200.0],
            side: 128.0 + random.share() * 1200.0,
            size: 128 + random.below(1200) as u32,
            landmarks: (0..68).map(|point| [point as f32 + 0.25, random.share() as f32 * 512.0]).collect(),
            mirrored: random.share(),
            mirrored_head: random.share(),
            mirrored_grid: vec![0.125; 16],
            blur: random.share() * 900.0,
            exposure: random.share(),
            quality: quality(id),
            fingerprint: fingerprint(id),
        }),
        prediction: {
            let p_ok = random.share();
            (random.below(16) > 0).then(|| prediction(p_ok, MODEL))
        },
    };
    photo
}

/// Faces that are measured have one; each is far from all others.
fn fingerprint(id: u64) -> Option<Fingerprint> {
    let mut random = Random::new(id + 2_000_000);
    let mut half = || u128::from(random.below(1 << 32) << 32 | random.below(1 << 32));
    quality(id).map(|_| Fingerprint::from_bits(half() << 64 | half()))
}

/// Some are of an earlier version, some originals are no JPEG, and two photos each have the same pixels.
fn quality(id: u64) -> Option<Quality> {
    let mut random = Random::new(id + 1_000_000);
    (random.below(10) > 0).then(|| Quality {
        contrast: random.share() / 2.0,
        saturation: random.share(),
        face_blur: random.share() * 900.0,
        jpeg_quality: (random.below(5) > 0).then(|| 1 + random.below(100) as u8),
        yaw: 2.0 * random.share() - 1.0,
        pitch: random.share(),
        eyes_open: random.share() / 2.0,
        mouth_open: random.share(),
        outlier: random.share() * 5.0,
        pixels: ContentHash::of(format!("pixels {}", id / 2).as_bytes()),
    })
}
