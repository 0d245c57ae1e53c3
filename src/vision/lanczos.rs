//! The Lanczos filter that cuts crops.
//!
//! A crop is cut tile by tile. The pixels around a tile are copied first: as 16-bit numbers, each beside the pixel below,
//! and mirrored beyond the edge of the photo. The filter then has no special cases, and takes two rows in one step.

use std::sync::LazyLock;

use image::RgbImage;

use super::geometry::Square;

/// Lanczos with three lobes uses 6 x 6 pixels.
const TAPS: usize = 6;
/// Distinct positions between two pixels. The error is below half a grey level.
const PHASES: usize = 512;
/// Positions are in units of 2^-32 pixels.
const PHASE_SHIFT: u32 = 32 - PHASES.ilog2();
/// Sum of the integer weights of a column.
const UNIT: i32 = 1 << 14;
/// Width and height of a tile in samples. The copied pixels then stay in the second cache of a core.
const TILE: u32 = 64;

/// A pixel and the one below: red, red below, green, green below, blue, blue below, and two zeros.
type Pair = [i16; 8];

/// The weights of the 6 pixels around each phase; their sum is 1.
struct Lanczos {
    /// Two weights in each number, the one of the upper row in the lower half.
    down: Box<[[i32; TAPS / 2]]>,
    /// Two zeros fill each row up.
    across: Box<[[f32; 8]]>,
}

static LANCZOS: LazyLock<Lanczos> = LazyLock::new(Lanczos::new);

/// Cuts a square at `size` x `size` pixels, with mirrored borders.
///
/// Where the square has more pixels, each output pixel is the mean of several samples, which prevents aliasing.
pub fn cut(picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { cut_avx2(picture, square, size) };
    }
    cut_portable(picture, square, size)
}

fn cut_portable(picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
    cut_with(picture, square, size, interleave, sample)
}

/// Vectorised. The order of the sums is the same, so both versions give the same pixels.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn cut_avx2(picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
    cut_with(
        picture,
        square,
        size,
        |above, below, pairs| avx2::interleave(above, below, pairs),
        |pairs, pitch, down, across| avx2::sample(pairs, pitch, down, across),
    )
}

impl Lanczos {
    fn new() -> Self {
        let kernel = |x: f64| {
            use std::f64::consts::PI;
            match x.abs() {
                x if x < 1e-9 => 1.0,
                x if x >= 3.0 => 0.0,
                x => 3.0 * (PI * x).sin() * (PI * x / 3.0).sin() / (PI * x).powi(2),
            }
        };
        let weights = |phase: usize| {
            let fraction = phase as f64 / PHASES as f64;
            let raw: [f64; TAPS] = std::array::from_fn(|tap| kernel(tap as f64 - 2.0 - fraction));
            let sum: f64 = raw.iter().sum();
            raw.map(|weight| weight / sum)
        };
        let down = |phase| {
            let mut whole = weights(phase).map(|weight| (weight * f64::from(UNIT)).round() as i32);
            let rest = UNIT - whole.iter().sum::<i32>();
            whole[if 2 * phase < PHASES { 2 } else { 3 }] += rest;
            std::array::from_fn(|pair| (whole[2 * pair + 1] << 16) | (whole[2 * pair] & 0xffff))
        };
        let across = |phase| {
            let mut row = [0.0; 8];
            // Divides by the unit, which the sums of the columns contain.
            for (to, weight) in row.iter_mut().zip(weights(phase)) {
                *to = (weight / f64::from(UNIT)) as f32;
            }
            row
        };
        Self { down: (0..PHASES).map(down).collect(), across: (0..PHASES).map(across).collect() }
    }
}

/// The samples of a crop: one per pixel, or `per` x `per` where it is scaled down.
struct Samples {
    per: u32,
    origin: [f64; 2],
    down: [f64; 2],
    right: [i64; 2],
}

impl Samples {
    fn of(square: &Square, size: u32) -> Self {
        // The distance of samples is at most one pixel of the image.
        let per = (square.side / f64::from(size) - 1e-3).ceil().clamp(1.0, 64.0) as u32;
        let fine = square.grid(size * per);
        Self { per, origin: fine.origin, down: fine.down, right: fine.right.map(fixed) }
    }

    /// The position of a sample in the image. Half a phase is added, so that truncation rounds.
    fn position(&self, column: u32, row: u32) -> [i64; 2] {
        let at = |axis: usize| {
            let start = fixed(self.origin[axis] + self.down[axis] * f64::from(row)) + (1 << (PHASE_SHIFT - 1));
            start + i64::from(column) * self.right[axis]
        };
        [at(0), at(1)]
    }
}

fn fixed(at: f64) -> i64 {
    (at * 2f64.powi(32)).round() as i64
}

/// The first of the 6 pixels around a position.
fn first_tap(at: i64) -> i64 {
    (at >> 32) - 2
}

#[inline(always)]
fn cut_with(
    picture: &RgbImage,
    square: &Square,
    size: u32,
    interleave: impl Fn(&[u8], &[u8], &mut [Pair]),
    sample: impl Fn(&[Pair], usize, &[i32; TAPS / 2], &[f32; 8]) -> [f32; 4],
) -> RgbImage {
    let mut out = RgbImage::new(size, size);
    if size == 0 || picture.is_empty() {
        return out;
    }
    let filter = &*LANCZOS;
    let samples = Samples::of(square, size);
    let per = samples.per;
    let share = 1.0 / (per * per) as f32;
    let tile = (TILE / per).clamp(1, size);
    let mut window = Window::default();
    let mut sums = vec![[0f32; 4]; tile as usize];
    for (top, left) in
        (0..size).step_by(tile as usize).flat_map(|y| (0..size).step_by(tile as usize).map(move |x| (y, x)))
    {
        let (right, bottom) = ((left + tile).min(size), (top + tile).min(size));
        let columns = [left * per, right * per - 1];
        let rows = [top * per, bottom * per - 1];
        let corners = rows.map(|row| columns.map(|column| samples.position(column, row)));
        window.fill(picture, corners.as_flattened(), &interleave);
        for y in top..bottom {
            sums.fill([0.0; 4]);
            for row in y * per..(y + 1) * per {
                let mut point = samples.position(left * per, row);
                for sum in &mut sums[..(right - left) as usize] {
                    for _ in 0..per {
                        let [across, down] = point.map(|at| (at >> PHASE_SHIFT) as usize % PHASES);
                        let pairs = window.at(point);
                        let part = sample(pairs, window.pitch, &filter.down[down], &filter.across[across]);
                        (0..4).for_each(|i| sum[i] += part[i]);
                        point = [point[0] + samples.right[0], point[1] + samples.right[1]];
                    }
                }
            }
            let line = &mut out.as_flat_samples_mut().samples[3 * (y * size) as usize..][..3 * size as usize];
            for (pixel, sum) in line[3 * left as usize..3 * right as usize].chunks_exact_mut(3).zip(&sums) {
                for i in 0..3 {
                    pixel[i] = (sum[i] * share + 0.5) as u8; // saturates
                }
            }
        }
    }
    out
}

/// The pixels around a tile.
#[derive(Default)]
struct Window {
    left: i64,
    top: i64,
    /// Pairs from one row to the next.
    pitch: usize,
    pairs: Vec<Pair>,
    /// Two rows of bytes, for those that cannot be taken from the image itself.
    lines: [Vec<u8>; 2],
}

impl Window {
    /// The bytes that are read at the end of a row beyond its pixels.
    const SLACK: usize = 16;

    /// Copies the pixels that samples between the corners need.
    #[inline(always)]
    fn fill(&mut self, picture: &RgbImage, corners: &[[i64; 2]], interleave: &impl Fn(&[u8], &[u8], &mut [Pair])) {
        let ends = |axis: usize| {
            let at = corners.iter().map(|corner| first_tap(corner[axis]));
            at.clone().min().zip(at.max()).unwrap_or_default()
        };
        let ((left, right), (top, bottom)) = (ends(0), ends(1));
        (self.left, self.top) = (left, top);
        // Rounded up to whole steps of `interleave`.
        let width = ((right - left) as usize + TAPS).next_multiple_of(4);
        self.pitch = width;
        let height = (bottom - top) as usize + TAPS - 1;
        self.pairs.resize(width * height, [0; 8]);
        let mut lines = std::mem::take(&mut self.lines);
        let [one, two] = &mut lines;
        let mut above = Self::line(picture, left, top, width, one);
        for (row, pairs) in self.pairs.chunks_exact_mut(width).enumerate() {
            // The buffers take turns: a row is below first, and above next.
            let y = top + row as i64 + 1;
            let below = Self::line(picture, left, y, width, two);
            interleave(above.bytes(picture, one), below.bytes(picture, two), pairs);
            std::mem::swap(one, two);
            above = below;
        }
        self.lines = lines;
    }

    /// The row `y` of the image or of its mirror. It is copied to `line` where it is not in the image as it is.
    #[inline(always)]
    fn line(picture: &RgbImage, left: i64, y: i64, width: usize, line: &mut Vec<u8>) -> Line {
        let columns = picture.width() as usize;
        let start = 3 * columns * mirror(y, picture.height() as usize);
        if let Ok(left) = usize::try_from(left)
            && left + width <= columns
            && start + 3 * (left + width) + Self::SLACK <= picture.as_raw().len()
        {
            return Line::OfImage { start: start + 3 * left, end: start + 3 * (left + width) + Self::SLACK };
        }
        line.clear();
        let row = &picture.as_raw()[start..start + 3 * columns];
        for x in left..left + width as i64 {
            let from = 3 * mirror(x, columns);
            line.extend_from_slice(&row[from..from + 3]);
        }
        line.resize(3 * width + Self::SLACK, 0);
        Line::Copied
    }

    /// The pairs from the first of the 6 x 6 pixels around a position.
    #[inline(always)]
    fn at(&self, point: [i64; 2]) -> &[Pair] {
        let [x, y] = [first_tap(point[0]) - self.left, first_tap(point[1]) - self.top].map(|at| at as usize);
        &self.pairs[y * self.pitch + x..]
    }
}

#[derive(Clone, Copy)]
enum Line {
    OfImage { start: usize, end: usize },
    Copied,
}

impl Line {
    fn bytes<'a>(self, picture: &'a RgbImage, copied: &'a [u8]) -> &'a [u8] {
        match self {
            Self::OfImage { start, end } => &picture.as_raw()[start..end],
            Self::Copied => copied,
        }
    }
}

/// Maps a coordinate outside the image to an index: the image is mirrored at its edge and the edge pixel is repeated
/// ("symmetric" padding).
fn mirror(index: i64, length: usize) -> usize {
    let period = 2 * length as i64;
    let index = index.rem_euclid(period);
    (if index < length as i64 { index } else { period - 1 - index }) as usize
}

/// Writes the pixels of two rows beside each other. The rows have 16 bytes more than pixels.
fn interleave(above: &[u8], below: &[u8], pairs: &mut [Pair]) {
    for ((pair, above), below) in pairs.iter_mut().zip(above.chunks_exact(3)).zip(below.chunks_exact(3)) {
        let [a, b] = [above, below].map(|pixel| [pixel[0], pixel[1], pixel[2]].map(i16::from));
        *pair = [a[0], b[0], a[1], b[1], a[2], b[2], 0, 0];
    }
}

/// The weighted sum of 6 x 6 pixels, the first of which begins `pairs`. Adds even taps, then odd ones, as the vector
/// version does.
fn sample(pairs: &[Pair], pitch: usize, down: &[i32; TAPS / 2], across: &[f32; 8]) -> [f32; 4] {
    let column = |tap: usize, channel: usize| {
        let part = |row: usize| {
            let pair = &pairs[2 * row * pitch + tap];
            let weights = [down[row] as i16, (down[row] >> 16) as i16].map(i32::from);
            weights[0] * i32::from(pair[2 * channel]) + weights[1] * i32::from(pair[2 * channel + 1])
        };
        (0..TAPS / 2).map(part).sum::<i32>() as f32 * across[tap]
    };
    std::array::from_fn(|channel| {
        let even = column(0, channel) + column(2, channel) + column(4, channel);
        even + (column(1, channel) + column(3, channel) + column(5, channel))
    })
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Pair, TAPS, Window};

    /// As [`super::interleave`], four pixels at a time.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn interleave(above: &[u8], below: &[u8], pairs: &mut [Pair]) {
        // Four bytes per pixel, so that each channel stays in its lane.
        let spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
        let needed = 3 * pairs.len() + Window::SLACK;
        let (above, below) = (&above[..needed], &below[..needed]);
        for (four, pairs) in pairs.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: the four pixels begin at most 12 bytes before the end of the pixels, and 16 bytes follow it.
            let load = |row: &[u8]| unsafe { _mm_loadu_si128(row.as_ptr().add(12 * four).cast()) };
            let [above, below] = [load(above), load(below)].map(|bytes| _mm_shuffle_epi8(bytes, spread));
            let (first, last) = (_mm_unpacklo_epi8(above, below), _mm_unpackhi_epi8(above, below));
            let to: *mut __m256i = pairs.as_mut_ptr().cast();
            // SAFETY: four pairs are 64 bytes.
            unsafe {
                _mm256_storeu_si256(to, _mm256_cvtepu8_epi16(first));
                _mm256_storeu_si256(to.add(1), _mm256_cvtepu8_epi16(last));
            }
        }
    }

    /// As [`super::sample`], with all channels and two pixels at a time.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn sample(pairs: &[Pair], pitch: usize, down: &[i32; TAPS / 2], across: &[f32; 8]) -> [f32; 4] {
        assert!(pairs.len() >= pitch * (TAPS - 2) + TAPS);
        let mut sums = [_mm256_setzero_si256(); 3];
        for (row, &weights) in down.iter().enumerate() {
            let weights = _mm256_set1_epi32(weights);
            for (two, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the row is at most 4, and the last of the two pixels is at most 5: within the asserted length.
                let pixels = unsafe { _mm256_loadu_si256(pairs.as_ptr().add(2 * row * pitch + 2 * two).cast()) };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pixels, weights));
            }
        }
        // SAFETY: eight floats are 32 bytes.
        let across = unsafe { _mm256_loadu_ps(across.as_ptr()) };
        let pair = |lanes| _mm256_permutevar8x32_ps(across, lanes);
        let part = |i: usize, lanes| _mm256_mul_ps(_mm256_cvtepi32_ps(sums[i]), pair(lanes));
        let both = _mm256_add_ps(
            _mm256_add_ps(
                part(0, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
                part(1, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
            ),
            part(2, _mm256_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5)),
        );
        let sum = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both));
        let mut four = [0f32; 4];
        // SAFETY: four floats are 16 bytes.
        unsafe { _mm_storeu_ps(four.as_mut_ptr(), sum) };
        four
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::super::test_pictures::noise;
    use super::*;

    #[test]
    fn the_mirror_repeats_the_edge_pixel() {
        let indices: Vec<usize> = (-5..9).map(|i| mirror(i, 4)).collect();
        assert_eq!(indices, [3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]);
        assert_eq!(mirror(-1_000_001, 1), 0);
    }

    #[test]
    fn a_level_cut_copies_pixels_and_mirrors_the_border() {
        let picture = noise(40, 30);
        let square = Square { centre: [10.5, 9.5], side: 32.0, angle: 0.0 };
        let cropped = cut(&picture, &square, 32);
        for (x, y, pixel) in cropped.enumerate_pixels() {
            let (from_x, from_y) = (mirror(i64::from(x) - 5, 40), mirror(i64::from(y) - 6, 30));
            assert_eq!(pixel, picture.get_pixel(from_x as u32, from_y as u32), "{x} {y}");
        }
    }

    #[test]
    fn a_rotated_cut_matches_the_definition() {
        let picture = noise(50, 60);
        let square = Square { centre: [20.0, 33.0], side: 44.0, angle: 27.0 };
        let cropped = cut(&picture, &square, 44);
        let kernel = |x: f64| {
            use std::f64::consts::PI;
            if x == 0.0 {
                1.0
            } else if x.abs() >= 3.0 {
                0.0
            } else {
                (PI * x).sin() / (PI * x) * (PI * x / 3.0).sin() / (PI * x / 3.0)
            }
        };
        for (x, y, pixel) in cropped.enumerate_pixels() {
            let [px, py] = square.to_picture([f64::from(x), f64::from(y)], 44);
            let (mut sum, mut total) = ([0.0; 3], 0.0);
            for row in py.floor() as i64 - 2..=py.floor() as i64 + 3 {
                for column in px.floor() as i64 - 2..=px.floor() as i64 + 3 {
                    let weight = kernel(px - column as f64) * kernel(py - row as f64);
                    total += weight;
                    let source = picture.get_pixel(mirror(column, 50) as u32, mirror(row, 60) as u32);
                    (0..3).for_each(|i| sum[i] += weight * f64::from(source[i]));
                }
            }
            for i in 0..3 {
                let expected = (sum[i] / total).clamp(0.0, 255.0);
                assert!((f64::from(pixel[i]) - expected).abs() < 2.0, "{x} {y}: {pixel:?}, not {expected}");
            }
        }
    }

    #[test]
    fn the_vector_version_gives_the_same_pixels() {
        let picture = noise(150, 140);
        for (side, size) in [(141.3, 141), (141.3, 60), (30.0, 30)] {
            // Over several tiles, and beyond all edges.
            let square = Square { centre: [70.0, 65.0], side, angle: -19.0 };
            assert_eq!(cut(&picture, &square, size), cut_portable(&picture, &square, size), "{side} {size}");
        }
    }

    #[test]
    fn scaling_down_does_not_alias() {
        // A checkerboard becomes grey.
        let board = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let square = Square { centre: [127.5, 127.5], side: 200.0, angle: 13.0 };
        let small = cut(&board, &square, 40);
        assert!(small.iter().all(|&value| (100..=155).contains(&value)), "{:?}", small.iter().max());
    }
}
