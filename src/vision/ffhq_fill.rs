//! What FFHQ does with the part of a crop beyond the photo.
//!
//! As published with the data set (Karras et al., arXiv 1710.10196, appendix C, and the script that remakes FFHQ from its
//! photos): the photo is reflected at its edge, the reflection is blurred the more the farther it is out, and it fades to the
//! median colour. A photo whose square stays within it is not touched.

use image::RgbImage;

use super::geometry::{Grid, Square};
use super::resample::{Rect, reduce};

/// The most pixels of a padded image. A larger one is reduced first, so that memory stays bounded: squares from about
/// 2000 pixels on, which is about the largest crop.
const MAX_PIXELS: u64 = 24_000_000;
/// Bytes for each pixel of the padded image: the bytes of the result, and planes of one channel.
const BYTES_PER_PIXEL: u64 = 18;

/// The image that the square lies in, and the square in it.
pub struct Filled {
    pub picture: RgbImage,
    pub square: Square,
}

/// The bytes that [`fill`] takes for a square in a photo of `width` x `height` pixels. 0: it has nothing to do.
pub fn memory(square: &Square, width: u32, height: u32) -> u64 {
    Layout::of(square, width, height).map_or(0, |layout| layout.pixels() * BYTES_PER_PIXEL)
}

/// Fills what lies beyond the photo. None: the square stays far enough within it.
pub fn fill(picture: &RgbImage, square: &Square) -> Option<Filled> {
    let layout = Layout::of(square, picture.width(), picture.height())?;
    let _span = tracing::trace_span!("fill", facemill.pixels = layout.pixels()).entered();
    let reduced = reduce(picture, layout.window, layout.factor);
    let (width, height) = layout.size();
    let mut filled = RgbImage::new(width as u32, height as u32);
    for channel in 0..3 {
        let mut plane = layout.reflected(&reduced, channel);
        let blurred = blur(&plane, width, height, 0.02 * layout.square.side);
        layout.blend(&mut plane, width, |index, value, mask| {
            value + (blurred[index] - value) * (3.0 * mask + 1.0).clamp(0.0, 1.0)
        });
        drop(blurred);
        let median = median(&plane);
        layout.blend(&mut plane, width, |_, value, mask| value + (median - value) * mask.clamp(0.0, 1.0));
        for (pixel, value) in filled.chunks_exact_mut(3).zip(&plane) {
            pixel[channel] = value.round_ties_even() as u8; // saturates
        }
    }
    Some(Filled { picture: filled, square: layout.square })
}

/// Where the photo, or the part of it around the square, lies in the padded image.
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    /// The part of the photo.
    window: Rect,
    /// By which it is reduced.
    factor: u32,
    /// Pixels that are added to the reduced part: left, top, right, bottom.
    pad: [usize; 4],
    /// The square in the padded image.
    square: Square,
}

impl Layout {
    /// None: nothing is to be filled.
    fn of(square: &Square, width: u32, height: u32) -> Option<Self> {
        let finite = square.side.is_finite() && square.centre.iter().all(|c| c.is_finite());
        if width == 0 || height == 0 || !finite || square.side <= 0.0 {
            return None;
        }
        let mut factor = 1;
        loop {
            let layout = Self::reduced_by(square, width, height, factor)?;
            // A square that reaches absurdly far out is not filled at any factor.
            if layout.pixels() <= MAX_PIXELS || factor == 64 {
                return (layout.pixels() <= MAX_PIXELS).then_some(layout);
            }
            factor += 1;
        }
    }

    fn reduced_by(square: &Square, width: u32, height: u32, factor: u32) -> Option<Self> {
        let scale = 1.0 / f64::from(factor);
        let border = (0.1 * square.side * scale).round_ties_even().max(3.0);
        // The part of the photo around the square, at the photo's scale.
        let [low, high] = bounds(square);
        let margin = border * f64::from(factor);
        let length = [f64::from(width), f64::from(height)];
        let from: [f64; 2] = std::array::from_fn(|axis| (low[axis].floor() - margin).clamp(0.0, length[axis] - 1.0));
        let to: [f64; 2] =
            std::array::from_fn(|axis| (high[axis].ceil() + margin).clamp(from[axis] + 1.0, length[axis]));
        let size: [u32; 2] = std::array::from_fn(|axis| (to[axis] - from[axis]) as u32);
        let window = Rect { x: from[0] as u32, y: from[1] as u32, width: size[0], height: size[1] };
        let factor = window.reducible(factor);
        let (scale, size) = (1.0 / f64::from(factor), size.map(|side| f64::from(side / factor)));
        let mut inner = Square {
            centre: std::array::from_fn(|axis| (square.centre[axis] - from[axis] + 0.5) * scale - 0.5),
            side: square.side * scale,
            angle: square.angle,
        };
        let [low, high] = bounds(&inner);
        let before = |axis: usize| (border - low[axis].floor()).max(0.0);
        let after = |axis: usize| (high[axis].ceil() - size[axis] + border).max(0.0);
        let pad = [before(0), before(1), after(0), after(1)];
        if pad.iter().all(|pad| *pad <= border - 4.0) {
            return None;
        }
        let least = (0.3 * inner.side).round_ties_even().max(1.0);
        let pad = pad.map(|pad| pad.max(least).min(1e6) as usize);
        inner.centre = [inner.centre[0] + pad[0] as f64, inner.centre[1] + pad[1] as f64];
        Some(Self { window, factor, pad, square: inner })
    }

    /// Width and height of the part without the pad.
    fn inner(&self) -> [usize; 2] {
        [self.window.width / self.factor, self.window.height / self.factor].map(|side| side as usize)
    }

    fn size(&self) -> (usize, usize) {
        let [width, height] = self.inner();
        (width + self.pad[0] + self.pad[2], height + self.pad[1] + self.pad[3])
    }

    fn pixels(&self) -> u64 {
        let (width, height) = self.size();
        width as u64 * height as u64
    }

    /// One channel of the part, reflected at its edges: the edge itself is not repeated.
    fn reflected(&self, part: &RgbImage, channel: usize) -> Vec<f32> {
        let ([inner_width, inner_height], (width, height)) = (self.inner(), self.size());
        let columns: Vec<usize> = (0..width).map(|x| 3 * reflect(x, self.pad[0], inner_width) + channel).collect();
        let mut plane = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = &part.as_raw()[3 * inner_width * reflect(y, self.pad[1], inner_height)..];
            plane.extend(columns.iter().map(|column| f32::from(row[*column])));
        }
        plane
    }

    /// Changes each pixel. `change` gets its index, its value, and how far out it is: 0 at the edge of the photo, 1 at the
    /// edge of the padded image, negative within the photo.
    fn blend(&self, plane: &mut [f32], width: usize, change: impl Fn(usize, f32, f32) -> f32) {
        let height = plane.len() / width;
        let [left, top, right, bottom] = self.pad.map(|pad| pad as f32);
        let across: Vec<f32> =
            (0..width).map(|x| 1.0 - (x as f32 / left).min((width - 1 - x) as f32 / right)).collect();
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            let down = 1.0 - (y as f32 / top).min((height - 1 - y) as f32 / bottom);
            for (x, value) in row.iter_mut().enumerate() {
                *value = change(y * width + x, *value, across[x].max(down));
            }
        }
    }
}

/// The least and the largest coordinates of the corners.
fn bounds(square: &Square) -> [[f64; 2]; 2] {
    let Grid { origin, right, down } = square.grid(1);
    let reach: [f64; 2] = std::array::from_fn(|axis| (right[axis].abs() + down[axis].abs()) / 2.0);
    [[origin[0] - reach[0], origin[1] - reach[1]], [origin[0] + reach[0], origin[1] + reach[1]]]
}

/// The pixel of `length` pixels that is shown `pad` pixels further: ... 2 1 0 1 2 ... .
fn reflect(at: usize, pad: usize, length: usize) -> usize {
    let period = (2 * length as i64 - 2).max(1);
    let at = (at as i64 - pad as i64).rem_euclid(period) as usize;
    if at < length { at } else { period as usize - at }
}

/// A Gaussian blur of a plane. Beyond its edge, the plane is mirrored with its edge repeated.
///
/// A wide kernel is applied to a reduced plane: the difference is below half a grey level.
fn blur(plane: &[f32], width: usize, height: usize, sigma: f64) -> Vec<f32> {
    let factor = ((sigma / 4.0) as usize).max(1);
    // Averages over blocks, and the interpolation between them, blur as well.
    let spread = if factor == 1 { 0.0 } else { (factor * factor - 1) as f64 / 12.0 + (factor * factor) as f64 / 6.0 };
    let sigma = (sigma * sigma - spread).max(0.01).sqrt() / factor as f64;
    let radius = (4.0 * sigma + 0.5) as usize;
    let raw: Vec<f64> = (0..=radius).map(|at| (-0.5 * (at as f64 / sigma).powi(2)).exp()).collect();
    let sum = 2.0 * raw.iter().sum::<f64>() - raw[0];
    let kernel: Vec<f32> = raw.iter().map(|weight| (weight / sum) as f32).collect();
    // One block more than the kernel on each side, to interpolate.
    let margin = radius + 1;
    let blocks = |length: usize| length.div_ceil(factor) + 2 * margin;
    let (columns, rows) = (blocks(width), blocks(height));

    let source: Vec<usize> =
        (0..columns * factor).map(|x| symmetric(x as i64 - (margin * factor) as i64, width)).collect();
    let share = 1.0 / (factor * factor) as f32;
    let mut reduced = vec![0f32; columns * rows];
    for (row, line) in reduced.chunks_exact_mut(columns).enumerate() {
        for offset in 0..factor {
            let y = symmetric((row * factor + offset) as i64 - (margin * factor) as i64, height);
            let from = &plane[y * width..(y + 1) * width];
            for (value, block) in line.iter_mut().zip(source.chunks_exact(factor)) {
                *value += block.iter().map(|x| from[*x]).sum::<f32>() * share;
            }
        }
    }
    // Down the columns, then along the rows. What lies within `radius` of the edge is not used afterwards.
    let mut down = vec![0f32; columns * rows];
    for row in radius..rows - radius {
        let line = &mut down[row * columns..(row + 1) * columns];
        for (at, weight) in kernel.iter().enumerate() {
            let above = &reduced[(row - at) * columns..][..columns];
            let below = &reduced[(row + at) * columns..][..columns];
            let weight = if at == 0 { weight / 2.0 } else { *weight };
            for ((sum, above), below) in line.iter_mut().zip(above).zip(below) {
                *sum += weight * (above + below);
            }
        }
    }
    let mut across = reduced;
    across.fill(0.0);
    for row in radius..rows - radius {
        let from = &down[row * columns..(row + 1) * columns];
        let inner = columns - 2 * radius;
        let line = &mut across[row * columns + radius..][..inner];
        for (at, weight) in kernel.iter().enumerate() {
            let weight = if at == 0 { weight / 2.0 } else { *weight };
            for ((sum, left), right) in line.iter_mut().zip(&from[radius - at..]).zip(&from[radius + at..]) {
                *sum += weight * (left + right);
            }
        }
    }
    drop(down);
    if factor == 1 {
        return (0..height).flat_map(|y| across[(y + margin) * columns + margin..][..width].iter().copied()).collect();
    }
    // Bilinear between the centres of the blocks.
    let place = |at: usize| {
        let position = (at as f32 + 0.5) / factor as f32 - 0.5 + margin as f32;
        (position as usize, position.fract())
    };
    let places: Vec<(usize, f32)> = (0..width).map(place).collect();
    let mut blurred = Vec::with_capacity(width * height);
    for y in 0..height {
        let (row, fraction) = place(y);
        let (above, below) = (&across[row * columns..][..columns], &across[(row + 1) * columns..][..columns]);
        let mixed: Vec<f32> = above.iter().zip(below).map(|(a, b)| a + (b - a) * fraction).collect();
        blurred.extend(places.iter().map(|(at, fraction)| mixed[*at] + (mixed[at + 1] - mixed[*at]) * fraction));
    }
    blurred
}

/// The pixel of `length` pixels at a place beyond them: ... 1 0 0 1 2 ... .
fn symmetric(at: i64, length: usize) -> usize {
    let at = at.rem_euclid(2 * length as i64) as usize;
    if at < length { at } else { 2 * length - 1 - at }
}

/// The median of values from 0 to 255, exact to 1/512.
fn median(plane: &[f32]) -> f32 {
    const STEPS: usize = 256;
    let mut counts = vec![0u32; 255 * STEPS + 1];
    for value in plane {
        counts[((value * STEPS as f32).round() as usize).min(255 * STEPS)] += 1;
    }
    let nth = |wanted: usize| {
        let mut before = 0;
        counts.iter().position(|count| {
            before += *count as usize;
            before > wanted
        })
    };
    let (low, high) = (nth((plane.len().max(1) - 1) / 2), nth(plane.len() / 2));
    (low.unwrap_or(0) + high.or(low).unwrap_or(0)) as f32 / (2 * STEPS) as f32
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn square(centre: [f64; 2], side: f64, angle: f64) -> Square {
        Square { centre, side, angle }
    }

    #[test]
    fn a_square_within_the_photo_is_not_touched() {
        let photo = RgbImage::from_pixel(400, 300, Rgb([9; 3]));
        assert!(fill(&photo, &square([200.0, 150.0], 150.0, 20.0)).is_none());
        assert_eq!(memory(&square([200.0, 150.0], 150.0, 20.0), 400, 300), 0);
        // Within four pixels of the edge.
        assert!(fill(&photo, &square([77.0, 150.0], 150.0, 0.0)).is_some());
        assert!(fill(&photo, &square([81.0, 150.0], 150.0, 0.0)).is_none());
    }

    #[test]
    fn the_square_keeps_its_place_on_the_photo() {
        // Grey with a white point at (150, 20): it stays where the square says it is.
        let mut photo = RgbImage::from_pixel(300, 280, Rgb([100; 3]));
        for (x, y) in [(149, 119), (150, 119), (149, 120), (150, 120)] {
            photo.put_pixel(x, y, Rgb([255; 3]));
        }
        let before = square([150.0, 60.0], 200.0, 30.0);
        let Filled { picture, square: after } = fill(&photo, &before).unwrap();
        let point = after.to_picture(before.from_picture([149.0, 119.0], 1), 1).map(|c| c.round() as u32);
        assert_eq!(picture.get_pixel(point[0], point[1]).0, [255; 3]);
        assert_eq!((after.side, after.angle), (200.0, 30.0));
        let size = u64::from(picture.width()) * u64::from(picture.height());
        assert_eq!(memory(&before, 300, 280), size * BYTES_PER_PIXEL);
    }

    #[test]
    fn wide_blurs_are_close_to_exact_ones() {
        let (width, height) = (230, 170);
        let plane: Vec<f32> = (0..width * height).map(|at| ((at * 7919 + at / width * 104_729) % 256) as f32).collect();
        for sigma in [3.0, 9.0, 21.0] {
            let radius = (4.0 * sigma + 0.5) as i64;
            let weights: Vec<f64> = (-radius..=radius).map(|at| (-0.5 * (at as f64 / sigma).powi(2)).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let exact = |x: usize, y: usize| {
                let row = |y: usize| -> f64 {
                    let at = |offset: i64| f64::from(plane[y * width + symmetric(x as i64 + offset, width)]);
                    weights.iter().zip(-radius..).map(|(weight, offset)| weight * at(offset)).sum()
                };
                let rows =
                    weights.iter().zip(-radius..).map(|(weight, at)| weight * row(symmetric(y as i64 + at, height)));
                rows.sum::<f64>() / (sum * sum)
            };
            let blurred = blur(&plane, width, height, sigma);
            for (x, y) in [(0, 0), (229, 169), (100, 80), (3, 150), (200, 1)] {
                let (found, exact) = (f64::from(blurred[y * width + x]), exact(x, y));
                assert!((found - exact).abs() < 0.5, "{sigma} at {x}, {y}: {found}, not {exact}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_for_any_square() {
        for (side, width, height) in
            [(3000.0, 4000, 3000), (7000.0, 7000, 7000), (9e9, 300, 300), (f64::NAN, 9, 9), (50.0, 1, 1)]
        {
            let around = square([f64::from(width) / 2.0, 0.0], side, 30.0);
            assert!(memory(&around, width, height) <= MAX_PIXELS * BYTES_PER_PIXEL, "{side}");
        }
        assert!(memory(&square([3500.0, 0.0], 7000.0, 30.0), 7000, 7000) > 0, "it is reduced, and filled");
        let _ = fill(&RgbImage::new(1, 1), &square([0.0, 0.0], 50.0, 0.0));
    }

    #[test]
    fn the_middle_value_is_found() {
        assert_eq!(median(&[3.0, 1.0, 250.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0, 250.0, 4.0]), 3.5);
        assert_eq!(median(&[255.0]), 255.0);
    }
}
