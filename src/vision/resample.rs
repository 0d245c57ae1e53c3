//! Resampling: reduction, scaling, rotation.

use image::RgbImage;

use super::geometry::Grid;

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
    // Multiplying and shifting gives the same quotients as dividing: the sums are below 2^24, and the area is at most 2^16.
    let reciprocal = (1u64 << 40).div_ceil(u64::from(area));
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
            pixel.copy_from_slice(&total.map(|sum| ((u64::from(sum) * reciprocal) >> 40) as u8));
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
    let at = |x: i64, y: i64| -> [u8; 3] {
        if border == BorderMode::Black && (x < 0 || y < 0 || x >= columns || y >= rows) {
            return [0; 3];
        }
        let start = 3 * (y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)) as usize;
        [pixels[start], pixels[start + 1], pixels[start + 2]]
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
            // Eight bytes of each row are read: two pixels, and two bytes of the next one.
            let above = 3 * (y0 * columns + x0);
            let below = above + 3 * columns;
            let is_inside = x0 >= 0 && y0 >= 0 && x0 + 1 < columns && below + 8 <= pixels.len() as i64;
            let rows = if is_inside {
                [above, below].map(|at| *pixels[at as usize..].first_chunk().unwrap_or(&[0; 8]))
            } else {
                [y0, y0 + 1].map(|y| {
                    let [[a, b, c], [d, e, f]] = [at(x0, y), at(x0 + 1, y)];
                    [a, b, c, d, e, f, 0, 0]
                })
            };
            pixel.copy_from_slice(&interpolate(rows, fx, fy));
            x += right_x;
            y += right_y;
        }
    }
    warped
}

/// The mean of two pixels of a row and the two below, weighted by fractions of 256. All sums are exact.
#[inline(always)]
fn interpolate(rows: [[u8; 8]; 2], x: u32, y: u32) -> [u8; 3] {
    #[cfg(target_arch = "x86_64")]
    return sse2::interpolate(rows, x, y);
    #[cfg(not(target_arch = "x86_64"))]
    interpolate_portable(rows, x, y)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn interpolate_portable([above, below]: [[u8; 8]; 2], x: u32, y: u32) -> [u8; 3] {
    std::array::from_fn(|i| {
        let across = |row: [u8; 8]| u32::from(row[i]) * (256 - x) + u32::from(row[i + 3]) * x;
        ((across(above) * (256 - y) + across(below) * y + (1 << 15)) >> 16) as u8
    })
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::*;

    /// Every processor of this kind has SSE2. The sums are below 2^24, so floats hold them exactly.
    #[inline(always)]
    pub fn interpolate([above, below]: [[u8; 8]; 2], x: u32, y: u32) -> [u8; 3] {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { vector(i64::from_le_bytes(above), i64::from_le_bytes(below), x as i32, y as i32) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn vector(above: i64, below: i64, x: i32, y: i32) -> [u8; 3] {
        let zero = _mm_setzero_si128();
        // Red above, red below, green above, and so on, first of the left pixel and then of the right one.
        let pairs = _mm_unpacklo_epi8(_mm_cvtsi64_si128(above), _mm_cvtsi64_si128(below));
        let down = _mm_set1_epi32((256 - y) | (y << 16));
        let first = _mm_cvtepi32_ps(_mm_madd_epi16(_mm_unpacklo_epi8(pairs, zero), down));
        let last = _mm_cvtepi32_ps(_mm_madd_epi16(_mm_unpackhi_epi8(pairs, zero), down));
        // The right pixel begins in the fourth number.
        let right = _mm_shuffle_ps::<0b01_00_11_11>(first, last);
        let right = _mm_shuffle_ps::<0b11_11_10_01>(right, right);
        let (to_left, to_right) = (_mm_set1_ps((256 - x) as f32), _mm_set1_ps(x as f32));
        let sum = _mm_add_ps(_mm_mul_ps(first, to_left), _mm_mul_ps(right, to_right));
        let rounded = _mm_srli_epi32::<16>(_mm_cvttps_epi32(_mm_add_ps(sum, _mm_set1_ps(32_768.0))));
        let bytes = _mm_packus_epi16(_mm_packs_epi32(rounded, zero), zero);
        let [red, green, blue, _] = _mm_cvtsi128_si32(bytes).to_le_bytes();
        [red, green, blue]
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::super::test_pictures::noise;
    use super::*;

    fn smooth(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let wave = |v: u32, period: f64| (127.5 + 120.0 * (f64::from(v) / period).sin()) as u8;
            Rgb([wave(x, 7.0), wave(y, 9.0), wave(x + y, 11.0)])
        })
    }

    #[test]
    fn scaling_down_does_not_alias() {
        // A checkerboard becomes grey.
        let board = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }; 3]));
        for small in [resize(&board, 100, 100), reduce(&board, Rect::of(&board), 4)] {
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

    #[test]
    fn the_vector_version_interpolates_alike() {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for _ in 0..20_000 {
            let rows: [[u8; 8]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| byte()));
            let [x, y] = [byte(), byte()].map(u32::from);
            assert_eq!(interpolate(rows, x, y), interpolate_portable(rows, x, y), "{rows:?} {x} {y}");
        }
        let white = [[255; 8]; 2];
        assert_eq!(interpolate(white, 128, 128), [255; 3]);
    }

    #[test]
    fn quotients_are_those_of_a_division() {
        for factor in 1..=256u64 {
            let area = factor * factor;
            let reciprocal = (1u64 << 40).div_ceil(area);
            for sum in
                [0, area - 1, area, 100 * area - 1, 100 * area, 255 * area - 1, 255 * area, 255 * area + area / 2]
            {
                assert_eq!((sum * reciprocal) >> 40, sum / area, "{sum} / {area}");
            }
        }
    }
}
