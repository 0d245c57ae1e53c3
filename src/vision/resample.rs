//! Fewer pixels, or turned ones.

use image::RgbImage;

use super::geometry::{Grid, Square};

/// The index that a coordinate beyond the edge stands for: the picture goes on mirrored, its edge pixel doubled
/// ("symmetric" padding).
fn mirror(index: i64, length: usize) -> usize {
    let period = 2 * length as i64;
    let index = index.rem_euclid(period);
    (if index < length as i64 { index } else { period - 1 - index }) as usize
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Window {
    pub fn of(picture: &RgbImage) -> Self {
        Self { x: 0, y: 0, width: picture.width(), height: picture.height() }
    }
}

/// Averages blocks of `factor` x `factor` pixels of a window; rests at the right and lower edge are left out.
pub fn reduce(picture: &RgbImage, window: Window, factor: u32) -> RgbImage {
    let factor = factor.clamp(1, window.width.min(window.height).clamp(1, 256));
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
    // Rows first, in 16 bits (256 x 255 fits): that runs over bytes side by side.
    let mut sums = vec![0u16; used];
    let area = factor * factor;
    for (y, row) in reduced.chunks_exact_mut(3 * width.max(1) as usize).enumerate() {
        sums.fill(0);
        for below in 0..factor as usize {
            let start = (window.y as usize + y * factor as usize + below) * pitch + from;
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

/// Shrinks (or, where it is smaller, enlarges) a picture to `width` x `height`: whole blocks are averaged first, the
/// rest is bilinear, so that every pixel counts about alike.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    if picture.dimensions() == (width, height) {
        return picture.clone();
    }
    let factor = (picture.width() / width.max(1)).min(picture.height() / height.max(1)).max(1);
    let reduced;
    let source = if factor > 1 {
        reduced = reduce(picture, Window::of(picture), factor);
        &reduced
    } else {
        picture
    };
    // What reduce left out at the edges is less than one of its pixels.
    let step = [
        f64::from(picture.width()) / f64::from(factor * width),
        f64::from(picture.height()) / f64::from(factor * height),
    ];
    let grid = Grid { origin: step.map(|step| step / 2.0 - 0.5), right: [step[0], 0.0], down: [0.0, step[1]] };
    warp(source, &grid, width, height, Beyond::Edge)
}

/// What there is beyond the edge of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    Black,
    /// The edge pixel goes on.
    Edge,
}

/// Takes `width` x `height` pixels off a turned grid, bilinear. No protection against aliasing: reduce first.
pub fn warp(picture: &RgbImage, grid: &Grid, width: u32, height: u32, beyond: Beyond) -> RgbImage {
    const ONE: i64 = 1 << 16;
    let fixed = |value: f64| (value * ONE as f64).round() as i64;
    let (columns, rows) = (i64::from(picture.width()), i64::from(picture.height()));
    let pixels = picture.as_raw();
    let at = |x: i64, y: i64| -> [u32; 3] {
        if beyond == Beyond::Black && (x < 0 || y < 0 || x >= columns || y >= rows) {
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
            // 8 bits of fraction are enough for 8-bit pixels.
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

/// Lanczos with three lobes: 6 x 6 pixels count.
const TAPS: usize = 6;
/// Positions between two pixels that are told apart. At 1024 the error is below half a grey level.
const PHASES: usize = 1024;
/// 6 pixels of 3 bytes, rounded up to whole vectors.
const LANES: usize = 24;

/// The weights of the 6 pixels around each phase; they add up to 1.
pub struct Lanczos {
    weights: Box<[[f32; TAPS]]>,
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
        let weights = (0..=PHASES).map(|phase| {
            let fraction = phase as f64 / PHASES as f64;
            let raw: [f64; TAPS] = std::array::from_fn(|tap| kernel(tap as f64 - 2.0 - fraction));
            let sum: f64 = raw.iter().sum();
            raw.map(|weight| (weight / sum) as f32)
        });
        Self { weights: weights.collect() }
    }
}

impl Lanczos {
    /// Cuts a square out of the picture, `size` pixels wide, the picture mirrored beyond its edges.
    ///
    /// Where the square has more pixels than that, each is the mean of several samples, so that nothing aliases.
    pub fn cut(&self, picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { self.cut_avx2(picture, square, size) };
        }
        self.cut_any(picture, square, size)
    }

    /// The same code with wider vectors; sums are taken in the same order, so that both give the same pixels.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn cut_avx2(&self, picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
        self.cut_any(picture, square, size)
    }

    #[inline(always)]
    fn cut_any(&self, picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
        let mut out = RgbImage::new(size, size);
        if size == 0 || picture.is_empty() {
            return out;
        }
        // With `per` samples a side in each pixel, samples are at most a pixel of the picture apart.
        let per = (square.side / f64::from(size) - 1e-3).ceil().clamp(1.0, 64.0) as u32;
        let fine = square.grid(size * per);
        let mut sums = vec![[0f32; 3]; size as usize];
        let share = 1.0 / (per * per) as f32;
        for (y, line) in out.chunks_exact_mut(3 * size as usize).enumerate() {
            sums.fill([0.0; 3]);
            for below in 0..per {
                let row = f64::from(y as u32 * per + below);
                let mut point = [fine.origin[0] + fine.down[0] * row, fine.origin[1] + fine.down[1] * row];
                for sum in &mut sums {
                    for _ in 0..per {
                        let sample = self.sample(picture, point);
                        for i in 0..3 {
                            sum[i] += sample[i];
                        }
                        point = [point[0] + fine.right[0], point[1] + fine.right[1]];
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

    #[inline(always)]
    fn sample(&self, picture: &RgbImage, point: [f64; 2]) -> [f32; 3] {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let pixels = picture.as_raw();
        let [(left, wx), (top, wy)] = point.map(|at| {
            let whole = at.floor();
            let phase = ((at - whole) * PHASES as f64 + 0.5) as usize;
            (whole as i64 - 2, &self.weights[phase.min(PHASES)])
        });
        let inside = left >= 0 && top >= 0 && left + 8 <= width as i64 && top + TAPS as i64 <= height as i64;
        let mut columns = [0f32; LANES];
        if inside {
            for (row, &weight) in wy.iter().enumerate() {
                let start = 3 * ((top as usize + row) * width + left as usize);
                let values: &[u8; LANES] = pixels[start..start + LANES].try_into().expect("24 bytes");
                for lane in 0..LANES {
                    columns[lane] += weight * f32::from(values[lane]);
                }
            }
        } else {
            let across: [usize; TAPS] = std::array::from_fn(|tap| mirror(left + tap as i64, width));
            for (row, &weight) in wy.iter().enumerate() {
                let start = mirror(top + row as i64, height) * width;
                for (tap, x) in across.iter().enumerate() {
                    let at = 3 * (start + x);
                    for i in 0..3 {
                        columns[3 * tap + i] += weight * f32::from(pixels[at + i]);
                    }
                }
            }
        }
        std::array::from_fn(|i| (0..TAPS).map(|tap| wx[tap] * columns[3 * tap + i]).sum())
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
    fn the_mirror_doubles_the_edge() {
        let indices: Vec<usize> = (-5..9).map(|i| mirror(i, 4)).collect();
        assert_eq!(indices, [3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]);
        assert_eq!(mirror(-1_000_001, 1), 0);
    }

    #[test]
    fn an_upright_cut_copies_pixels_and_mirrors_beyond() {
        let picture = noise(40, 30);
        let square = Square { centre: [10.5, 9.5], side: 32.0, angle: 0.0 };
        let cut = Lanczos::default().cut(&picture, &square, 32);
        for (x, y, pixel) in cut.enumerate_pixels() {
            let (from_x, from_y) = (mirror(i64::from(x) - 5, 40), mirror(i64::from(y) - 6, 30));
            assert_eq!(pixel, picture.get_pixel(from_x as u32, from_y as u32), "{x} {y}");
        }
    }

    #[test]
    fn a_turned_cut_is_what_the_definition_says() {
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
    fn wide_vectors_change_no_pixel() {
        let (lanczos, picture) = (Lanczos::default(), noise(64, 64));
        let square = Square { centre: [30.0, 25.0], side: 71.3, angle: -19.0 };
        for size in [71, 30] {
            assert_eq!(lanczos.cut(&picture, &square, size), lanczos.cut_any(&picture, &square, size));
        }
    }

    #[test]
    fn shrinking_does_not_alias() {
        // A checkerboard is grey from afar.
        let board = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        let square = Square { centre: [127.5, 127.5], side: 200.0, angle: 13.0 };
        let cut = Lanczos::default().cut(&board, &square, 40);
        for shrunk in [cut, resize(&board, 100, 100), reduce(&board, Window::of(&board), 4)] {
            assert!(shrunk.iter().all(|&value| (100..=155).contains(&value)), "{:?}", shrunk.iter().max());
        }
    }

    #[test]
    fn resizing_keeps_places() {
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
    fn a_window_is_reduced_in_place() {
        let picture = noise(50, 50);
        let window = Window { x: 7, y: 9, width: 31, height: 23 };
        let reduced = reduce(&picture, window, 5);
        assert_eq!(reduced.dimensions(), (6, 4));
        let sum: u32 = (0..25).map(|i| u32::from(picture.get_pixel(7 + 5 + i % 5, 9 + 10 + i / 5)[1])).sum();
        assert_eq!(u32::from(reduced.get_pixel(1, 2)[1]), (sum + 12) / 25);
        assert_eq!(reduce(&picture, window, 1).get_pixel(3, 4), picture.get_pixel(10, 13));
    }

    #[test]
    fn beyond_the_edge_it_is_black_when_asked() {
        let white = RgbImage::from_pixel(10, 10, Rgb([255; 3]));
        let grid = Grid { origin: [-5.0, -5.0], right: [1.0, 0.0], down: [0.0, 1.0] };
        let black = warp(&white, &grid, 20, 20, Beyond::Black);
        assert_eq!((black.get_pixel(0, 0)[0], black.get_pixel(10, 10)[0]), (0, 255));
        assert!(warp(&white, &grid, 20, 20, Beyond::Edge).iter().all(|&value| value == 255));
    }
}
