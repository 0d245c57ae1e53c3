//! Resampling: reduction, scaling, rotation.

use image::RgbImage;

use super::geometry::{Grid, Square};

/// Maps a coordinate outside the image to an index: the image is mirrored at its edge and the edge pixel is repeated
/// ("symmetric" padding).
fn mirror(index: i64, length: usize) -> usize {
    let period = 2 * length as i64;
    let index = index.rem_euclid(period);
    (if index < length as i64 { index } else { period - 1 - index }) as usize
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    pub fn of(picture: &RgbImage) -> Self {
        Self { x: 0, y: 0, width: picture.width(), height: picture.height() }
    }

    /// The factor nearest to `factor` that [`reduce`] supports for this rectangle.
    pub fn reducible(&self, factor: u32) -> u32 {
        factor.clamp(1, self.width.min(self.height).clamp(1, 256))
    }
}

/// Averages blocks of `factor` x `factor` pixels of a window. Incomplete blocks at the right and lower edge are left
/// out. The factor is limited by [`Rect::reducible`].
pub fn reduce(picture: &RgbImage, window: Rect, factor: u32) -> RgbImage {
    let factor = window.reducible(factor);
    let (width, height) = (window.width / factor, window.height / factor);
    let mut reduced = RgbImage::new(width, height);
    let pixels = picture.as_raw();
    let pitch = 3 * picture.width() as usize;
    let from = 3 * window.x as usize;
    let used = 3 * (width * factor) as usize;
    if factor == 1 {
        for (y, row) in reduced.chunks_exact_mut(used.max(1)).enumerate() {
            let start = (window.y as usize + y) * pitch + from;
            row.copy_from_slice(&pixels[start..start + used]);
        }
        return reduced;
    }
    // Rows are summed first, in 16 bits (256 x 255 fits), so that the loop runs over consecutive bytes.
    let mut sums = vec![0u16; used];
    let area = factor * factor;
    for (y, row) in reduced.chunks_exact_mut(3 * width.max(1) as usize).enumerate() {
        sums.fill(0);
        for offset in 0..factor as usize {
            let start = (window.y as usize + y * factor as usize + offset) * pitch + from;
            for (sum, &value) in sums.iter_mut().zip(&pixels[start..start + used]) {
                *sum += u16::from(value);
            }
        }
        for (pixel, block) in row.chunks_exact_mut(3).zip(sums.chunks_exact(3 * factor as usize)) {
            let mut total = [area / 2; 3];
            for column in block.chunks_exact(3) {
                for (sum, &value) in total.iter_mut().zip(column) {
                    *sum += u32::from(value);
                }
            }
            pixel.copy_from_slice(&total.map(|sum| (sum / area) as u8));
        }
    }
    reduced
}

/// Scales an image to `width` x `height`. Whole blocks are averaged first and the rest is bilinear, so that all pixels
/// have about the same weight.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    if picture.dimensions() == (width, height) {
        return picture.clone();
    }
    let factor = (picture.width() / width.max(1)).min(picture.height() / height.max(1)).max(1);
    let reduced;
    let source = if factor > 1 {
        reduced = reduce(picture, Rect::of(picture), factor);
        &reduced
    } else {
        picture
    };
    // The part that `reduce` leaves out at the edges is smaller than one reduced pixel.
    let step = [
        f64::from(picture.width()) / f64::from(factor * width),
        f64::from(picture.height()) / f64::from(factor * height),
    ];
    let grid = Grid { origin: step.map(|step| step / 2.0 - 0.5), right: [step[0], 0.0], down: [0.0, step[1]] };
    warp(source, &grid, width, height, BorderMode::Edge)
}

/// The pixels outside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BorderMode {
    Black,
    /// The edge pixel is repeated.
    Edge,
}

/// Samples `width` x `height` pixels on a rotated grid, bilinear. There is no anti-aliasing: use [`reduce`] first.
pub fn warp(picture: &RgbImage, grid: &Grid, width: u32, height: u32, border: BorderMode) -> RgbImage {
    const ONE: i64 = 1 << 16;
    let fixed = |value: f64| (value * ONE as f64).round() as i64;
    let (columns, rows) = (i64::from(picture.width()), i64::from(picture.height()));
    let pixels = picture.as_raw();
    let at = |x: i64, y: i64| -> [u32; 3] {
        if border == BorderMode::Black && (x < 0 || y < 0 || x >= columns || y >= rows) {
            return [0; 3];
        }
        let start = 3 * (y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)) as usize;
        [u32::from(pixels[start]), u32::from(pixels[start + 1]), u32::from(pixels[start + 2])]
    };
    let mut warped = RgbImage::new(width, height);
    let [right_x, right_y] = grid.right.map(fixed);
    for (row, line) in warped.chunks_exact_mut(3 * width.max(1) as usize).enumerate() {
        let mut x = fixed(grid.origin[0] + grid.down[0] * row as f64);
        let mut y = fixed(grid.origin[1] + grid.down[1] * row as f64);
        for pixel in line.chunks_exact_mut(3) {
            let (x0, y0) = (x >> 16, y >> 16);
            // 8 bits of fraction suffice for 8-bit pixels.
            let (fx, fy) = (((x & (ONE - 1)) >> 8) as u32, ((y & (ONE - 1)) >> 8) as u32);
            let (a, b, c, d) = if x0 >= 0 && y0 >= 0 && x0 + 1 < columns && y0 + 1 < rows {
                let above = 3 * (y0 * columns + x0) as usize;
                let below = above + 3 * columns as usize;
                let (above, below) = (&pixels[above..above + 6], &pixels[below..below + 6]);
                let three = |values: &[u8]| [u32::from(values[0]), u32::from(values[1]), u32::from(values[2])];
                (three(above), three(&above[3..]), three(below), three(&below[3..]))
            } else {
                (at(x0, y0), at(x0 + 1, y0), at(x0, y0 + 1), at(x0 + 1, y0 + 1))
            };
            for i in 0..3 {
                let above = a[i] * (256 - fx) + b[i] * fx;
                let below = c[i] * (256 - fx) + d[i] * fx;
                pixel[i] = ((above * (256 - fy) + below * fy + (1 << 15)) >> 16) as u8;
            }
            x += right_x;
            y += right_y;
        }
    }
    warped
}

/// Lanczos with three lobes uses 6 x 6 pixels.
const TAPS: usize = 6;
/// Distinct positions between two pixels. The error is below half a grey level.
const PHASES: usize = 512;
/// Positions are in units of 2^-32 pixels.
const PHASE_SHIFT: u32 = 32 - PHASES.ilog2();
/// Sum of the integer weights of a column.
const UNIT: i32 = 1 << 14;

/// A Lanczos filter. Holds the weights of the 6 pixels around each phase; their sum is 1.
pub struct Lanczos {
    down: Box<[[i16; TAPS]]>,
    across: Box<[[f32; TAPS]]>,
}

impl Default for Lanczos {
    fn default() -> Self {
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
            let mut whole = weights(phase).map(|weight| (weight * f64::from(UNIT)).round() as i16);
            let rest = UNIT - whole.iter().map(|&weight| i32::from(weight)).sum::<i32>();
            whole[if 2 * phase < PHASES { 2 } else { 3 }] += rest as i16;
            whole
        };
        // Divides by the unit, which the sums of the columns contain.
        let across = |phase| weights(phase).map(|weight| (weight / f64::from(UNIT)) as f32);
        Self { down: (0..PHASES).map(down).collect(), across: (0..PHASES).map(across).collect() }
    }
}

impl Lanczos {
    /// Cuts a square at `size` x `size` pixels, with mirrored borders.
    ///
    /// Where the square has more pixels, each output pixel is the mean of several samples, which prevents aliasing.
    pub fn cut(&self, picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { self.cut_avx2(picture, square, size) };
        }
        self.cut_portable(picture, square, size)
    }

    fn cut_portable(&self, picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
        cut_with(picture, square, size, |point| {
            let taps = self.taps(point);
            taps.weighted(|tap, channel| {
                let at = |row: usize| {
                    let x = mirror(taps.left + tap as i64, picture.width() as usize);
                    let y = mirror(taps.top + row as i64, picture.height() as usize);
                    i32::from(picture.as_raw()[3 * (y * picture.width() as usize + x) + channel])
                };
                (0..TAPS).map(|row| i32::from(taps.down[row]) * at(row)).sum()
            })
        })
    }

    /// Vectorised. The order of the sums is the same, so both versions give the same pixels.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn cut_avx2(&self, picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let pixels = picture.as_raw();
        cut_with(picture, square, size, |point| {
            let taps = self.taps(point);
            // 28 bytes of each row are read: 9 1/3 pixels.
            let inside = taps.left >= 0
                && taps.top >= 0
                && taps.left + 10 <= width as i64
                && taps.top + TAPS as i64 <= height as i64;
            if inside {
                let start = 3 * (taps.top as usize * width + taps.left as usize);
                let rows = &pixels[start..start + 3 * width * (TAPS - 1) + 28];
                return avx2::sample(rows, 3 * width, taps.down, taps.across);
            }
            // At the border, the 6 x 6 pixels are copied to rows of 28 bytes.
            let mut rows = [0u8; 28 * TAPS];
            let columns: [usize; TAPS] = std::array::from_fn(|tap| 3 * mirror(taps.left + tap as i64, width));
            for (row, line) in rows.chunks_exact_mut(28).enumerate() {
                let start = 3 * width * mirror(taps.top + row as i64, height);
                for (pixel, column) in line.chunks_exact_mut(3).zip(columns) {
                    pixel.copy_from_slice(&pixels[start + column..start + column + 3]);
                }
            }
            avx2::sample(&rows, 28, taps.down, taps.across)
        })
    }

    #[inline(always)]
    fn taps(&self, point: [i64; 2]) -> Taps<'_> {
        let [left, top] = point.map(|at| (at >> 32) - 2);
        let [x, y] = point.map(|at| (at >> PHASE_SHIFT) as usize % PHASES);
        Taps { left, top, across: &self.across[x], down: &self.down[y] }
    }
}

/// The 6 x 6 pixels around a point and their weights.
struct Taps<'a> {
    left: i64,
    top: i64,
    across: &'a [f32; TAPS],
    down: &'a [i16; TAPS],
}

impl Taps<'_> {
    /// Adds even taps, then odd ones, in the order of the vector version.
    fn weighted(&self, column: impl Fn(usize, usize) -> i32) -> [f32; 3] {
        std::array::from_fn(|channel| {
            let part = |tap: usize| column(tap, channel) as f32 * self.across[tap];
            (part(0) + part(2) + part(4)) + (part(1) + part(3) + part(5))
        })
    }
}

/// Fills a square with samples: one per pixel, or the mean of several where it is scaled down.
#[inline(always)]
fn cut_with(picture: &RgbImage, square: &Square, size: u32, sample: impl Fn([i64; 2]) -> [f32; 3]) -> RgbImage {
    let mut out = RgbImage::new(size, size);
    if size == 0 || picture.is_empty() {
        return out;
    }
    // With `per` x `per` samples per pixel, the distance of samples is at most one pixel of the image.
    let per = (square.side / f64::from(size) - 1e-3).ceil().clamp(1.0, 64.0) as u32;
    let fine = square.grid(size * per);
    // Half a phase is added, so that truncation rounds.
    let fixed = |at: f64| (at * 2f64.powi(32)).round() as i64;
    let half = 1i64 << (PHASE_SHIFT - 1);
    let right = fine.right.map(fixed);
    let mut sums = vec![[0f32; 3]; size as usize];
    let share = 1.0 / (per * per) as f32;
    for (y, line) in out.chunks_exact_mut(3 * size as usize).enumerate() {
        sums.fill([0.0; 3]);
        for offset in 0..per {
            let row = f64::from(y as u32 * per + offset);
            let start = |axis: usize| fixed(fine.origin[axis] + fine.down[axis] * row) + half;
            let mut point = [start(0), start(1)];
            for sum in &mut sums {
                for _ in 0..per {
                    let sample = sample(point);
                    for i in 0..3 {
                        sum[i] += sample[i];
                    }
                    point = [point[0] + right[0], point[1] + right[1]];
                }
            }
        }
        for (pixel, sum) in line.chunks_exact_mut(3).zip(&sums) {
            for i in 0..3 {
                pixel[i] = (sum[i] * share + 0.5) as u8; // saturates
            }
        }
    }
    out
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::TAPS;

    /// The weighted sum of 6 x 6 pixels. `rows` begins at the first pixel and ends 28 bytes into the last row.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn sample(rows: &[u8], pitch: usize, down: &[i16; TAPS], across: &[f32; TAPS]) -> [f32; 3] {
        assert!(rows.len() >= pitch * (TAPS - 1) + 28);
        // Four bytes per pixel, so that each channel stays in its lane.
        let spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
        let mut sums = [_mm256_setzero_si256(); 3];
        for pair in 0..TAPS / 2 {
            let load = |row: usize, pixel: usize| {
                let start = rows[row * pitch + 3 * pixel..].as_ptr();
                // SAFETY: row <= 5 and pixel <= 4, so 16 bytes from here are within the asserted length.
                _mm_shuffle_epi8(unsafe { _mm_loadu_si128(start.cast()) }, spread)
            };
            let (a, b) = (2 * pair, 2 * pair + 1);
            let weights = (i32::from(down[b]) << 16) | (i32::from(down[a]) & 0xffff);
            let weights = _mm256_set1_epi32(weights);
            let (above, below) = (load(a, 0), load(b, 0));
            let (above_end, below_end) = (load(a, 4), load(b, 4));
            let interleaved = [
                _mm_unpacklo_epi8(above, below),
                _mm_unpackhi_epi8(above, below),
                _mm_unpacklo_epi8(above_end, below_end),
            ];
            for (sum, bytes) in sums.iter_mut().zip(interleaved) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), weights));
            }
        }
        let part = |i: usize| {
            let weights = _mm256_set_m128(_mm_set1_ps(across[2 * i + 1]), _mm_set1_ps(across[2 * i]));
            _mm256_mul_ps(_mm256_cvtepi32_ps(sums[i]), weights)
        };
        let both = _mm256_add_ps(_mm256_add_ps(part(0), part(1)), part(2));
        let sum = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both));
        let mut four = [0f32; 4];
        // SAFETY: four floats are 16 bytes.
        unsafe { _mm_storeu_ps(four.as_mut_ptr(), sum) };
        [four[0], four[1], four[2]]
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 1u32;
        RgbImage::from_fn(width, height, |_, _| {
            Rgb(std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }))
        })
    }

    fn smooth(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let wave = |v: u32, period: f64| (127.5 + 120.0 * (f64::from(v) / period).sin()) as u8;
            Rgb([wave(x, 7.0), wave(y, 9.0), wave(x + y, 11.0)])
        })
    }

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
        let cut = Lanczos::default().cut(&picture, &square, 32);
        for (x, y, pixel) in cut.enumerate_pixels() {
            let (from_x, from_y) = (mirror(i64::from(x) - 5, 40), mirror(i64::from(y) - 6, 30));
            assert_eq!(pixel, picture.get_pixel(from_x as u32, from_y as u32), "{x} {y}");
        }
    }

    #[test]
    fn a_rotated_cut_matches_the_definition() {
        let picture = noise(50, 60);
        let square = Square { centre: [20.0, 33.0], side: 44.0, angle: 27.0 };
        let cut = Lanczos::default().cut(&picture, &square, 44);
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
        for (x, y, pixel) in cut.enumerate_pixels() {
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
        let (lanczos, picture) = (Lanczos::default(), noise(64, 64));
        let square = Square { centre: [30.0, 25.0], side: 71.3, angle: -19.0 };
        for size in [71, 30] {
            assert_eq!(lanczos.cut(&picture, &square, size), lanczos.cut_portable(&picture, &square, size));
        }
    }

    #[test]
    fn scaling_down_does_not_alias() {
        // A checkerboard becomes grey.
        let board = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let square = Square { centre: [127.5, 127.5], side: 200.0, angle: 13.0 };
        let cut = Lanczos::default().cut(&board, &square, 40);
        for small in [cut, resize(&board, 100, 100), reduce(&board, Rect::of(&board), 4)] {
            assert!(small.iter().all(|&value| (100..=155).contains(&value)), "{:?}", small.iter().max());
        }
    }

    #[test]
    fn resizing_keeps_positions() {
        let picture = smooth(200, 120);
        let small = resize(&picture, 100, 60);
        for (x, y, pixel) in small.enumerate_pixels() {
            let four = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| picture.get_pixel(2 * x + dx, 2 * y + dy));
            for i in 0..3 {
                let mean = four.iter().map(|p| f64::from(p[i])).sum::<f64>() / 4.0;
                assert!((f64::from(pixel[i]) - mean).abs() <= 1.0);
            }
        }
        assert_eq!(resize(&picture, 77, 33).dimensions(), (77, 33));
        assert_eq!(resize(&picture, 1, 1).dimensions(), (1, 1));
        assert_eq!(resize(&noise(1, 500), 10, 320).dimensions(), (10, 320));
    }

    #[test]
    fn reduce_averages_the_pixels_of_a_window() {
        let picture = noise(50, 50);
        let window = Rect { x: 7, y: 9, width: 31, height: 23 };
        let reduced = reduce(&picture, window, 5);
        assert_eq!(reduced.dimensions(), (6, 4));
        let sum: u32 = (0..25).map(|i| u32::from(picture.get_pixel(7 + 5 + i % 5, 9 + 10 + i / 5)[1])).sum();
        assert_eq!(u32::from(reduced.get_pixel(1, 2)[1]), (sum + 12) / 25);
        assert_eq!(reduce(&picture, window, 1).get_pixel(3, 4), picture.get_pixel(10, 13));
    }

    #[test]
    fn the_border_is_black_or_repeats_the_edge() {
        let white = RgbImage::from_pixel(10, 10, Rgb([255; 3]));
        let grid = Grid { origin: [-5.0, -5.0], right: [1.0, 0.0], down: [0.0, 1.0] };
        let black = warp(&white, &grid, 20, 20, BorderMode::Black);
        assert_eq!((black.get_pixel(0, 0)[0], black.get_pixel(10, 10)[0]), (0, 255));
        assert!(warp(&white, &grid, 20, 20, BorderMode::Edge).iter().all(|&value| value == 255));
    }
}
