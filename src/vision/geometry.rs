//! Points, angles and turned squares.
//!
//! Coordinates are pixels with y downwards, and a pixel's centre has whole coordinates: a picture `width` wide reaches
//! from -0.5 to `width` - 0.5. Angles are degrees as `cv2.getRotationMatrix2D` counts them: turning a picture by a
//! positive angle turns it counter-clockwise.

pub type Point = [f64; 2];

/// A square part of a picture that is level once the picture is turned by `angle` around the square's centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Square {
    pub centre: Point,
    pub side: f64,
    pub angle: f64,
}

impl Square {
    /// The pixel `[x, y]` of the square cut out at `size` pixels, as a point of the picture.
    pub fn to_picture(&self, point: Point, size: u32) -> Point {
        let grid = self.grid(size);
        std::array::from_fn(|axis| grid.origin[axis] + grid.right[axis] * point[0] + grid.down[axis] * point[1])
    }

    /// A point of the picture, as pixels of the square cut out at `size` pixels.
    pub fn from_picture(&self, point: Point, size: u32) -> Point {
        let scale = f64::from(size) / self.side;
        let [dx, dy] = turn([point[0] - self.centre[0], point[1] - self.centre[1]], self.angle);
        let middle = f64::from(size) / 2.0 - 0.5;
        [dx * scale + middle, dy * scale + middle]
    }

    /// Where the pixels of the square cut out at `size` pixels lie in the picture.
    pub fn grid(&self, size: u32) -> Grid {
        let step = self.side / f64::from(size);
        let (sin, cos) = self.angle.to_radians().sin_cos();
        let (right, down) = ([cos * step, sin * step], [-sin * step, cos * step]);
        let middle = f64::from(size) / 2.0 - 0.5;
        let origin = std::array::from_fn(|axis| self.centre[axis] - (right[axis] + down[axis]) * middle);
        Grid { origin, right, down }
    }

    /// Intersection over union of two squares' outlines, by counting on a grid: good to about 0.002.
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

/// Pixel `[x, y]` of a cut is `origin + x right + y down` in the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    pub origin: Point,
    pub right: [f64; 2],
    pub down: [f64; 2],
}

/// The vector as it is after the picture was turned by `angle` degrees.
pub fn turn([x, y]: [f64; 2], angle: f64) -> [f64; 2] {
    let (sin, cos) = angle.to_radians().sin_cos();
    [cos * x + sin * y, cos * y - sin * x]
}

/// The angle by which the picture must be turned for the line from `a` to `b` to be level, `b` on the right.
pub fn level(a: Point, b: Point) -> f64 {
    (b[1] - a[1]).atan2(b[0] - a[0]).to_degrees()
}

/// The same angle in -180..=180.
pub fn wrap(angle: f64) -> f64 {
    angle - 360.0 * (angle / 360.0).round()
}

/// Rounds to so many decimal digits, for records.
pub fn round(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// The mean of some landmarks.
pub fn mean(points: &[[f32; 2]]) -> Point {
    let sum = points.iter().fold([0.0; 2], |sum, p| [sum[0] + f64::from(p[0]), sum[1] + f64::from(p[1])]);
    sum.map(|total| total / points.len() as f64)
}

/// The centres of the two eyes in 68 landmarks: first the one on the left of an upright picture, the person's right.
pub fn eyes(landmarks: &[[f32; 2]]) -> [Point; 2] {
    [mean(&landmarks[36..42]), mean(&landmarks[42..48])]
}

/// The angle of the eye line in 68 landmarks.
pub fn eye_angle(landmarks: &[[f32; 2]]) -> f64 {
    let [e0, e1] = eyes(landmarks);
    level(e0, e1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: Point, b: Point) -> bool {
        (a[0] - b[0]).hypot(a[1] - b[1]) < 1e-9
    }

    #[test]
    fn turning_by_the_level_angle_levels() {
        let (a, b) = ([10.0, 20.0], [40.0, 60.0]);
        let angle = level(a, b);
        assert!(angle > 0.0, "the right end hangs down: counter-clockwise lifts it");
        let levelled = turn([b[0] - a[0], b[1] - a[1]], angle);
        assert!(near(levelled, [50.0, 0.0]), "{levelled:?}");
    }

    #[test]
    fn an_upright_square_of_the_picture_keeps_its_pixels() {
        let square = Square { centre: [49.5, 49.5], side: 100.0, angle: 0.0 };
        assert!(near(square.to_picture([0.0, 0.0], 100), [0.0, 0.0]));
        assert!(near(square.to_picture([99.0, 3.0], 100), [99.0, 3.0]));
        // At half the size a pixel's centre lies between two.
        assert!(near(square.to_picture([0.0, 0.0], 50), [0.5, 0.5]));
    }

    #[test]
    fn the_two_ways_are_inverse() {
        let square = Square { centre: [12.5, 77.0], side: 31.0, angle: 33.0 };
        let point = [3.25, 17.0];
        assert!(near(square.from_picture(square.to_picture(point, 64), 64), point));
        // What is on the right of the turned square lay lower in the picture, for a positive angle.
        assert!(square.to_picture([63.0, 31.5], 64)[1] > square.centre[1]);
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        let square = Square { centre: [50.0, 50.0], side: 40.0, angle: 10.0 };
        assert!((square.overlap(&square) - 1.0).abs() < 1e-9);
        let upright = Square { angle: 0.0, ..square };
        let beside = Square { centre: [70.0, 50.0], ..upright };
        assert!((upright.overlap(&beside) - 1.0 / 3.0).abs() < 0.005);
        assert_eq!(upright.overlap(&Square { centre: [200.0, 50.0], ..upright }), 0.0);
    }

    #[test]
    fn angles_wrap() {
        assert_eq!([wrap(190.0), wrap(-190.0), wrap(725.0)], [-170.0, 170.0, 5.0]);
    }
}
