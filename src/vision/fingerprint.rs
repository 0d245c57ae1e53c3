//! Fingerprints of crops: a hash that copies of a photo share but for a few bits, however they were made.
//!
//! The crop is levelled and scaled by the landmarks, so a copy that was turned, rescaled or cut off shows the face at
//! the same place again. What a fingerprint compares are the lowest spatial frequencies of its luma: a discrete cosine
//! transform of the middle of the crop at 48 x 48 pixels, as in Zauner, Implementation and Benchmarking of Perceptual
//! Image Hash Functions (2010), faded out towards its edges, where copies differ most. Light, contrast and colour do not
//! count. Each bit says whether a frequency is stronger than usual in portraits: they all have a bright face below dark
//! hair, and bits that say so would tell nobody apart.
//!
//! Mirroring a crop changes the sign of the frequencies that are odd from left to right. Their usual strength is 0, so
//! the fingerprint of the mirrored crop has these bits inverted, and no second picture is needed.

use image::RgbImage;

use super::quality::luma;
use super::resample::resize;
use facemill_domain::Fingerprint;

const BITS: usize = Fingerprint::BITS as usize;
/// Pixels of the side to which the crop is scaled.
const SIZE: u32 = 64;
/// Pixels that are left out at each side: the background differs most there, and the crop is mirrored first.
const MARGIN: usize = 8;
const WIDTH: usize = SIZE as usize - 2 * MARGIN;
/// Frequencies in one direction that may be among the lowest.
const FREQUENCIES: usize = 16;

/// What is usual of each frequency in portraits that are aligned as `paper`, in parts of the length of the vector of all
/// frequencies: means over the crops of 175 photographs, one of each person. Those that are odd from left to right have 0.
const USUAL: [f32; BITS] = [
    -0.039, 0.0, 0.0, -0.021, -0.256, 0.0, -0.113, 0.074, 0.082, 0.0, 0.0, 0.0, 0.08, 0.0, -0.144, 0.154, 0.0, 0.107,
    0.0, 0.096, -0.016, -0.253, 0.0, -0.127, 0.0, 0.0, 0.0, 0.137, 0.0, 0.0, 0.0, 0.0, 0.061, 0.061, 0.0, -0.007,
    -0.031, 0.012, 0.056, 0.0, 0.0, 0.074, 0.203, 0.0, 0.0, 0.0, 0.0, -0.028, -0.077, -0.093, 0.0, 0.0, 0.0, 0.0,
    -0.108, 0.005, 0.112, 0.0, -0.056, 0.0, 0.033, -0.002, -0.093, 0.036, 0.0, -0.057, 0.0, 0.0, 0.008, 0.024, -0.109,
    0.0, 0.0, 0.0, 0.059, 0.059, 0.0, 0.0, 0.0, 0.036, 0.0, 0.0, 0.012, 0.0, 0.0, -0.024, -0.01, 0.002, -0.036, 0.0,
    0.019, 0.024, -0.001, 0.0, 0.0, 0.0, -0.022, 0.0, -0.012, -0.012, 0.019, -0.023, 0.0, 0.072, 0.0, 0.0, 0.0, -0.038,
    0.0, -0.004, 0.0, -0.018, 0.0, 0.0, 0.0, 0.0, -0.017, -0.01, -0.011, 0.0, 0.005, 0.016, 0.0, 0.007, 0.0, -0.014,
    0.0, 0.0,
];

/// The frequencies of a fingerprint, `[from left to right, from top to bottom]` in half waves, the lowest first.
fn frequencies() -> [[usize; 2]; BITS] {
    let mut all: Vec<[usize; 2]> =
        (0..FREQUENCIES * FREQUENCIES).map(|at| [at / FREQUENCIES, at % FREQUENCIES]).skip(1).collect();
    all.sort_by_key(|[x, y]| (x * x + y * y, *x, *y));
    std::array::from_fn(|at| all[at])
}

/// The fingerprint of an aligned crop.
pub fn of(crop: &RgbImage) -> Fingerprint {
    let frequencies = frequencies();
    let spectrum = spectrum(&luma(&resize(crop, SIZE, SIZE)));
    let values = frequencies.map(|[x, y]| spectrum[y][x]);
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    let bits = values
        .iter()
        .zip(USUAL)
        .enumerate()
        .fold(0, |bits, (at, (value, usual))| bits | u128::from(value / length > usual) << at);
    Fingerprint::from_bits(bits)
}

/// The fingerprint of the mirrored crop.
pub fn mirrored(fingerprint: Fingerprint) -> Fingerprint {
    let odd = frequencies().iter().enumerate().fold(0u128, |odd, (at, [x, _])| odd | ((x % 2) as u128) << at);
    Fingerprint::from_bits(fingerprint.bits() ^ odd)
}

/// The cosine transform of the middle of a picture of [`SIZE`] x [`SIZE`] pixels: rows of frequencies from top to bottom.
fn spectrum(luma: &[f32]) -> [[f32; FREQUENCIES]; FREQUENCIES] {
    let waves: [[f32; WIDTH]; FREQUENCIES] = std::array::from_fn(|frequency| {
        let wave = |at: usize| (std::f32::consts::PI * frequency as f32 * (at as f32 + 0.5) / WIDTH as f32).cos();
        std::array::from_fn(wave)
    });
    // The square root of a Hann window, as it is applied once in each direction.
    let fade: [f32; WIDTH] =
        std::array::from_fn(|at| (std::f32::consts::PI * (at + 1) as f32 / (WIDTH + 1) as f32).sin());
    let weighted = |wave: &[f32; WIDTH], values: &[f32]| wave.iter().zip(values).map(|(a, b)| a * b).sum::<f32>();
    let middle = || luma.chunks_exact(SIZE as usize).skip(MARGIN).take(WIDTH).map(|row| &row[MARGIN..MARGIN + WIDTH]);
    let mean = middle().flatten().sum::<f32>() / (WIDTH * WIDTH) as f32;
    // By row of pixels and frequency from left to right.
    let across: Vec<[f32; FREQUENCIES]> = middle()
        .zip(fade)
        .map(|(row, row_fade)| {
            let row: [f32; WIDTH] = std::array::from_fn(|at| (row[at] - mean) * fade[at] * row_fade);
            waves.map(|wave| weighted(&wave, &row))
        })
        .collect();
    std::array::from_fn(|y| {
        std::array::from_fn(|x| across.iter().zip(&waves[y]).map(|(row, wave)| row[x] * wave).sum())
    })
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use image::imageops::{flip_horizontal, rotate90};

    use super::*;

    /// Blobs at places that the seed determines, on a soft ground.
    fn picture(seed: u32, size: u32) -> RgbImage {
        // The finalizer of MurmurHash3: neighbouring seeds must not give shifted pictures.
        let scrambled = |number: u32| {
            let number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
            let number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
            number ^ number >> 16
        };
        let place = |at: u32| f64::from(scrambled(1000 * seed + at) & 0xffff) / 65_536.0;
        let blobs: Vec<[f64; 4]> = (0..24).map(|at| std::array::from_fn(|i| place(97 * at + i as u32))).collect();
        RgbImage::from_fn(size, size, |x, y| {
            let [x, y] = [x, y].map(|at| (f64::from(at) + 0.5) / f64::from(size));
            let light = blobs.iter().map(|[bx, by, width, height]| {
                (height - 0.5) * (-((x - bx).powi(2) + (y - by).powi(2)) / (0.002 + 0.02 * width)).exp()
            });
            let value = (110.0 + 90.0 * light.sum::<f64>()).clamp(0.0, 255.0);
            Rgb([value as u8, (0.9 * value) as u8, (0.7 * value) as u8])
        })
    }

    #[test]
    fn copies_share_most_bits_and_other_pictures_do_not() {
        for seed in [1, 2, 3, 4] {
            let original = picture(seed, 600);
            let print = of(&original);
            let grey = RgbImage::from_fn(600, 600, |x, y| {
                let [r, g, b] = original.get_pixel(x, y).0.map(f32::from);
                Rgb([(0.299 * r + 0.587 * g + 0.114 * b) as u8; 3])
            });
            let bright = RgbImage::from_fn(600, 600, |x, y| {
                Rgb(original.get_pixel(x, y).0.map(|value| (1.2 * f32::from(value)).min(255.0) as u8))
            });
            for (name, copy) in [("small", resize(&original, 150, 150)), ("grey", grey), ("bright", bright)] {
                let distance = of(&copy).distance(print);
                assert!(distance <= 10, "{name} copy of {seed}: {distance}");
            }
            for other in [5, 6, 7, 8] {
                let distance = of(&picture(other, 600)).distance(print);
                assert!(distance >= 30, "{seed} and {other}: {distance}");
            }
            assert!(of(&rotate90(&original)).distance(print) >= 30);
        }
    }

    #[test]
    fn the_fingerprint_of_a_mirrored_crop_follows_from_that_of_the_crop() {
        for seed in [1, 2, 3] {
            let crop = picture(seed, 512);
            let distance = of(&flip_horizontal(&crop)).distance(mirrored(of(&crop)));
            assert!(distance <= 2, "{distance}");
            assert!(of(&flip_horizontal(&crop)).distance(of(&crop)) >= 30);
            assert_eq!(mirrored(mirrored(of(&crop))), of(&crop));
        }
    }

    #[test]
    fn the_lowest_frequencies_count_and_odd_ones_have_no_usual_strength() {
        let frequencies = frequencies();
        assert_eq!(frequencies[..4], [[0, 1], [1, 0], [1, 1], [0, 2]]);
        assert!(frequencies.iter().flatten().all(|frequency| *frequency < FREQUENCIES - 1), "none is cut off");
        assert!(frequencies.iter().zip(USUAL).all(|([x, _], usual)| x % 2 == 0 || usual == 0.0));
        assert!(USUAL.iter().any(|usual| *usual != 0.0));
    }

    #[test]
    fn flat_and_small_crops_have_a_fingerprint() {
        let flat = of(&RgbImage::from_pixel(300, 300, Rgb([90; 3])));
        assert_eq!(of(&RgbImage::from_pixel(64, 64, Rgb([200; 3]))), flat);
        of(&RgbImage::from_pixel(1, 1, Rgb([9; 3])));
    }
}
