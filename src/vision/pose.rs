//! Pose, openings and usualness of a face, from its 68 landmarks.

use super::geometry::{Point, eyes};
use facemill_domain::{Align, LandmarkReference, LandmarkScheme, Spread};

/// Proxies of the pose and openings of a face. They do not depend on its size, place and rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// The tip of the nose between the two edges of the jaw at the height of the ears: 0 in the middle, -1 at the edge on
    /// the left of the image, 1 at the other.
    pub yaw: f64,
    /// The tip of the nose between the line of the eyes (0) and the corners of the mouth (1), along the face.
    pub pitch: f64,
    /// Mean of both eyes: height by width (Soukupova and Cech, CVWW 2016).
    pub eyes_open: f64,
    /// Height by width between the lips.
    pub mouth_open: f64,
}

fn point(landmarks: &[[f32; 2]], index: usize) -> Point {
    landmarks[index].map(f64::from)
}

fn distance(landmarks: &[[f32; 2]], a: usize, b: usize) -> f64 {
    let [a, b] = [a, b].map(|index| point(landmarks, index));
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// A quotient within `-most..=most`; 0 where there is none.
fn ratio(part: f64, whole: f64, most: f64) -> f64 {
    let ratio = part / whole;
    if ratio.is_nan() { 0.0 } else { ratio.clamp(-most, most) }
}

/// Measures the pose of a face. `landmarks`: 68 points, in pixels of any image.
pub fn measure(landmarks: &[[f32; 2]]) -> Pose {
    let [e0, e1] = eyes(landmarks);
    let across = [e1[0] - e0[0], e1[1] - e0[1]];
    let down = [-across[1], across[0]];
    // How far a point is along an axis from the middle of the eyes. The unit cancels out.
    let along =
        |axis: [f64; 2], [x, y]: Point| (x - (e0[0] + e1[0]) / 2.0) * axis[0] + (y - (e0[1] + e1[1]) / 2.0) * axis[1];
    let nose = point(landmarks, 30);
    let [left, right] = [0, 16].map(|index| along(across, point(landmarks, index)));
    let at = along(across, nose);
    let mouth = (along(down, point(landmarks, 48)) + along(down, point(landmarks, 54))) / 2.0;
    let opening = |pairs: &[[usize; 2]], width: f64| {
        let heights: f64 = pairs.iter().map(|[a, b]| distance(landmarks, *a, *b)).sum();
        ratio(heights / pairs.len() as f64, width, 10.0)
    };
    let eye = |first: usize| {
        opening(&[[first + 1, first + 5], [first + 2, first + 4]], distance(landmarks, first, first + 3))
    };
    Pose {
        yaw: ratio((at - left) - (right - at), right - left, 1.0),
        pitch: ratio(along(down, nose), mouth, 10.0),
        eyes_open: (eye(36) + eye(42)) / 2.0,
        mouth_open: opening(&[[61, 67], [62, 66], [63, 65]], distance(landmarks, 60, 64)),
    }
}

/// The distances from the centre of a crop of `size` pixels to the outermost landmarks, in sides of the crop: left, top,
/// right and bottom.
pub fn extents(landmarks: &[[f32; 2]], size: u32) -> [f64; 4] {
    let middle = f64::from(size) / 2.0 - 0.5;
    let outermost = |axis: usize, sign: f64| {
        let outer = landmarks.iter().map(|point| sign * (f64::from(point[axis]) - middle)).fold(f64::MIN, f64::max);
        outer / f64::from(size.max(1))
    };
    [outermost(0, -1.0), outermost(1, -1.0), outermost(0, 1.0), outermost(1, 1.0)]
}

/// What is usual of landmarks of a scheme, in crops of an alignment.
///
/// The extents are means and standard deviations of 211 or 212 portraits of politicians in public photographs, found by the
/// guided search; left and right are pooled, because a face may look either way. The angle is a convention: people tilt
/// their heads on purpose, so that 30 degrees count as two deviations.
pub fn reference(align: Align, scheme: LandmarkScheme) -> LandmarkReference {
    let [side, top, bottom] = match (scheme, align) {
        (LandmarkScheme::Ibug, Align::Paper) => [[0.289, 0.0426], [0.111, 0.0148], [0.451, 0.028]],
        (LandmarkScheme::Ibug, Align::Ffhq) => [[0.289, 0.0432], [0.112, 0.0154], [0.451, 0.028]],
        (LandmarkScheme::Ibug, Align::Seed) => [[0.289, 0.0423], [0.06, 0.014], [0.502, 0.0298]],
        (LandmarkScheme::Permissive, Align::Paper) => [[0.279, 0.0406], [0.112, 0.0097], [0.42, 0.0206]],
        (LandmarkScheme::Permissive, Align::Ffhq) => [[0.279, 0.0409], [0.114, 0.0106], [0.42, 0.0207]],
        (LandmarkScheme::Permissive, Align::Seed) => [[0.279, 0.0396], [0.063, 0.0086], [0.47, 0.0226]],
    };
    let (source, faces) = match scheme {
        LandmarkScheme::Ibug => (format!("portraits, {align}"), 211),
        LandmarkScheme::Permissive => (format!("portraits, {align}, {scheme} landmarks"), 212),
    };
    let spread = |[mean, deviation]: [f64; 2]| Spread { mean, deviation };
    LandmarkReference {
        source,
        faces,
        left: spread(side),
        top: spread(top),
        right: spread(side),
        bottom: spread(bottom),
        angle: spread([0.0, 15.0]),
    }
}

/// The outlier score: the largest distance of an extent or of the angle from what is usual, in standard deviations, at
/// most 1000. `landmarks` are in pixels of the crop, `angle` in degrees.
pub fn outlier(landmarks: &[[f32; 2]], size: u32, angle: f64, reference: &LandmarkReference) -> f64 {
    let [left, top, right, bottom] = extents(landmarks, size);
    let LandmarkReference { source: _, faces: _, left: l, top: t, right: r, bottom: b, angle: a } = reference;
    let distances = [l.distance(left), t.distance(top), r.distance(right), b.distance(bottom), a.distance(angle)];
    distances.into_iter().fold(0.0, f64::max).min(1000.0)
}

#[cfg(test)]
mod tests {
    use super::super::geometry::rotate;
    use super::*;

    /// A face of 200 pixels around (256, 256). `nose`: its tip, as yaw and pitch.
    fn face(nose: [f64; 2], opening: f64, rotation: f64) -> Vec<[f32; 2]> {
        let mut points = [[0.0f64; 2]; 68];
        points[0] = [-100.0, 0.0];
        points[16] = [100.0, 0.0];
        points[8] = [0.0, 160.0];
        points[30] = [100.0 * nose[0], 100.0 * nose[1]];
        for (first, x) in [(36, -50.0), (42, 50.0)] {
            for (index, [dx, dy]) in
                [[-20.0, 0.0], [-8.0, -1.0], [8.0, -1.0], [20.0, 0.0], [8.0, 1.0], [-8.0, 1.0]].into_iter().enumerate()
            {
                points[first + index] = [x + dx, 20.0 * opening * dy];
            }
        }
        points[48] = [-40.0, 100.0];
        points[54] = [40.0, 100.0];
        points[60] = [-30.0, 100.0];
        points[64] = [30.0, 100.0];
        for (top, bottom, x) in [(61, 67, -10.0), (62, 66, 0.0), (63, 65, 10.0)] {
            points[top] = [x, 100.0 - 30.0 * opening];
            points[bottom] = [x, 100.0 + 30.0 * opening];
        }
        let placed = points.map(|point| rotate(point, rotation).map(|c| (c + 256.0) as f32));
        placed.to_vec()
    }

    #[test]
    fn pose_and_openings_follow_the_landmarks_at_any_rotation() {
        for rotation in [0.0, 33.0, -90.0] {
            let frontal = measure(&face([0.0, 0.6], 0.25, rotation));
            let near = |a: f64, b: f64| (a - b).abs() < 1e-3;
            assert!(near(frontal.yaw, 0.0) && near(frontal.pitch, 0.6), "{frontal:?}");
            assert!(near(frontal.eyes_open, 0.25) && near(frontal.mouth_open, 0.25), "{frontal:?}");
            let turned = measure(&face([-0.5, 0.3], 0.0, rotation));
            assert!(near(turned.yaw, -0.5) && near(turned.pitch, 0.3), "{turned:?}");
            assert!(near(turned.eyes_open, 0.0) && near(turned.mouth_open, 0.0), "{turned:?}");
        }
    }

    #[test]
    fn landmarks_in_one_point_have_finite_numbers() {
        let Pose { yaw, pitch, eyes_open, mouth_open } = measure(&[[5.0; 2]; 68]);
        assert_eq!([yaw, pitch, eyes_open, mouth_open], [0.0; 4]);
        assert!(outlier(&[[5.0; 2]; 68], 0, 0.0, &reference(Align::Paper, LandmarkScheme::Ibug)).is_finite());
    }

    #[test]
    fn the_outlier_score_is_the_largest_distance_in_deviations() {
        let landmarks = face([0.0, 0.6], 0.25, 0.0);
        let [left, top, right, bottom] = extents(&landmarks, 512);
        assert!((left - 100.0 / 512.0).abs() < 2e-3 && (bottom - 160.0 / 512.0).abs() < 2e-3);
        let spread = |mean: f64| Spread { mean, deviation: 0.05 };
        let reference = LandmarkReference {
            source: "a test".into(),
            faces: 2,
            left: spread(left),
            top: spread(top),
            right: spread(right + 0.15),
            bottom: spread(bottom - 0.05),
            angle: Spread { mean: 0.0, deviation: 10.0 },
        };
        assert!((outlier(&landmarks, 512, 5.0, &reference) - 3.0).abs() < 1e-6, "the right edge decides");
        assert!((outlier(&landmarks, 512, -45.0, &reference) - 4.5).abs() < 1e-6, "the angle decides");
    }

    #[test]
    fn the_references_of_the_program_fit_a_usual_face() {
        for (align, scheme) in
            Align::ALL.into_iter().flat_map(|align| LandmarkScheme::ALL.map(|scheme| (align, scheme)))
        {
            let reference = reference(align, scheme);
            let spreads = [reference.left, reference.top, reference.right, reference.bottom, reference.angle];
            assert!(spreads.iter().all(|spread| spread.deviation > 0.0), "{align}, {scheme}");
        }
    }
}
