//! Points, angles and rotated squares.
//!
//! Coordinates are pixels, y points down, and the centre of a pixel has whole coordinates: an image of `width` pixels
//! extends from -0.5 to `width` - 0.5. Angles are degrees, as in `cv2.getRotationMatrix2D`: a positive angle rotates an
//! image counter-clockwise.

pub type Point = [f64; 2];

/// A square in an image. It is level after the image is rotated by `angle` around the centre of the square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Square {
    pub centre: Point,
    pub side: f64,
    pub angle: f64,
}

impl Square {
    /// The point in the image of the pixel `[x, y]` of the crop with side `size`.
    pub fn to_picture(&self, point: Point, size: u32) -> Point {
        self.grid(size).at(point)
    }

    /// The pixel in the crop with side `size` of a point in the image.
    pub fn from_picture(&self, point: Point, size: u32) -> Point {
        let scale = f64::from(size) / self.side;
        let [dx, dy] = rotate([point[0] - self.centre[0], point[1] - self.centre[1]], self.angle);
        let middle = f64::from(size) / 2.0 - 0.5;
        [dx * scale + middle, dy * scale + middle]
    }

    /// The positions in the image of the pixels of the crop with side `size`.
    pub fn grid(&self, size: u32) -> Grid {
        let step = self.side / f64::from(size);
        let (sin, cos) = self.angle.to_radians().sin_cos();
        let (right, down) = ([cos * step, sin * step], [-sin * step, cos * step]);
        let middle = f64::from(size) / 2.0 - 0.5;
        let origin = std::array::from_fn(|axis| self.centre[axis] - (right[axis] + down[axis]) * middle);
        Grid { origin, right, down }
    }

    /// Intersection over union of two squares, counted on a grid. The error is about 0.002.
    pub fn overlap(&self, other: &Square) -> f64 {
        const STEPS: u32 = 256;
        let inside = (0..STEPS * STEPS).filter(|i| {
            let point = self.to_picture([f64::from(i % STEPS), f64::from(i / STEPS)], STEPS);
            other.from_picture(point, 1).iter().all(|c| c.abs() <= 0.5)
        });
        let shared = inside.count() as f64 / f64::from(STEPS * STEPS) * self.side.powi(2);
        shared / (self.side.powi(2) + other.side.powi(2) - shared)
    }
}

/// Pixel `[x, y]` of a crop is at `origin + x right + y down` in the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    pub origin: Point,
    pub right: [f64; 2],
    pub down: [f64; 2],
}

impl Grid {
    /// The position in the image of a pixel of the crop.
    pub fn at(&self, [x, y]: Point) -> Point {
        std::array::from_fn(|axis| self.origin[axis] + self.right[axis] * x + self.down[axis] * y)
    }
}

/// Rotates a vector as an image that is rotated by `angle` degrees.
pub fn rotate([x, y]: [f64; 2], angle: f64) -> [f64; 2] {
    let (sin, cos) = angle.to_radians().sin_cos();
    [cos * x + sin * y, cos * y - sin * x]
}

/// The rotation that makes the line from `a` to `b` level, with `b` on the right.
pub fn line_angle(a: Point, b: Point) -> f64 {
    (b[1] - a[1]).atan2(b[0] - a[0]).to_degrees()
}

/// The equivalent angle in -180..=180.
pub fn wrap(angle: f64) -> f64 {
    angle - 360.0 * (angle / 360.0).round()
}

/// Rounds to this number of decimal digits.
pub fn round(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// The mean of landmarks.
pub fn mean(points: &[[f32; 2]]) -> Point {
    let sum = points.iter().fold([0.0; 2], |sum, p| [sum[0] + f64::from(p[0]), sum[1] + f64::from(p[1])]);
    sum.map(|total| total / points.len() as f64)
}

/// The centres of the two eyes in 68 landmarks: first the person's right eye, which is on the left of the image.
pub fn eyes(landmarks: &[[f32; 2]]) -> [Point; 2] {
    [mean(&landmarks[36..42]), mean(&landmarks[42..48])]
}

/// The angle of the eye line in 68 landmarks.
pub fn eye_angle(landmarks: &[[f32; 2]]) -> f64 {
    let [e0, e1] = eyes(landmarks);
    line_angle(e0, e1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: Point, b: Point) -> bool {
        (a[0] - b[0]).hypot(a[1] - b[1]) < 1e-9
    }

    #[test]
    fn rotating_by_the_line_angle_makes_the_line_level() {
        let (a, b) = ([10.0, 20.0], [40.0, 60.0]);
        let angle = line_angle(a, b);
        assert!(angle > 0.0, "the right end is lower: a counter-clockwise rotation lifts it");
        let levelled = rotate([b[0] - a[0], b[1] - a[1]], angle);
        assert!(near(levelled, [50.0, 0.0]), "{levelled:?}");
    }

    #[test]
    fn a_level_square_keeps_its_pixels() {
        let square = Square { centre: [49.5, 49.5], side: 100.0, angle: 0.0 };
        assert!(near(square.to_picture([0.0, 0.0], 100), [0.0, 0.0]));
        assert!(near(square.to_picture([99.0, 3.0], 100), [99.0, 3.0]));
        // At half the size, the centre of a pixel is between two pixels.
        assert!(near(square.to_picture([0.0, 0.0], 50), [0.5, 0.5]));
    }

    #[test]
    fn to_picture_and_from_picture_are_inverse() {
        let square = Square { centre: [12.5, 77.0], side: 31.0, angle: 33.0 };
        let point = [3.25, 17.0];
        assert!(near(square.from_picture(square.to_picture(point, 64), 64), point));
        // For a positive angle, the right side of the square is lower in the image.
        assert!(square.to_picture([63.0, 31.5], 64)[1] > square.centre[1]);
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        let square = Square { centre: [50.0, 50.0], side: 40.0, angle: 10.0 };
        assert!((square.overlap(&square) - 1.0).abs() < 1e-9);
        let level = Square { angle: 0.0, ..square };
        let beside = Square { centre: [70.0, 50.0], ..level };
        assert!((level.overlap(&beside) - 1.0 / 3.0).abs() < 0.005);
        assert_eq!(level.overlap(&Square { centre: [200.0, 50.0], ..level }), 0.0);
    }

    #[test]
    fn angles_are_wrapped() {
        assert_eq!([wrap(190.0), wrap(-190.0), wrap(725.0)], [-170.0, 170.0, 5.0]);
    }
}
