//! Colours that a file describes by numbers instead of a profile: a curve of brightness, and the chromaticities of its
//! primaries (ITU-T H.273; PNG, 3rd edition, 11.3.2).

use moxcms::{Chromaticity, CicpColorPrimaries, ColorPrimaries, ColorProfile};

/// A colour space.
#[derive(Debug, Clone)]
pub struct ColourSpace {
    pub name: String,
    pub curve: Curve,
    /// Red, green, blue and white. None: those of sRGB.
    pub primaries: Option<[Chromaticity; 4]>,
}

/// How bright a sample is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Curve {
    /// Also those of television, which programs show in the same way.
    Srgb,
    /// The sample to this power.
    Power(f64),
    /// Perceptual quantisation (SMPTE ST 2084).
    Pq,
    /// Hybrid log-gamma (ITU-R BT.2100-2).
    Hlg,
}

impl ColourSpace {
    /// The space of two codes of ITU-T H.273.
    ///
    /// # Errors
    /// Why the colours cannot be converted.
    pub fn of_codes(primaries: u16, transfer: u16) -> Result<Self, String> {
        let (curve, curve_name) = match transfer {
            1 | 2 | 6 | 7 | 11..=15 => (Curve::Srgb, "sRGB"),
            4 => (Curve::Power(2.2), "gamma 2.2"),
            5 => (Curve::Power(2.8), "gamma 2.8"),
            8 => (Curve::Power(1.0), "linear"),
            16 => (Curve::Pq, "PQ"),
            17 => (Curve::Power(2.6), "gamma 2.6"),
            18 => (Curve::Hlg, "HLG"),
            _ => return Err(format!("its transfer characteristics {transfer} are not known")),
        };
        const SRGB: u16 = 1;
        const UNSPECIFIED: u16 = 2;
        const WHITE_C: Chromaticity = Chromaticity { x: 0.310, y: 0.316 };
        let chromaticities = match primaries {
            SRGB | UNSPECIFIED => None,
            _ => {
                let unknown = || format!("its colour primaries {primaries} are not known");
                let known = u8::try_from(primaries).ok().and_then(|code| CicpColorPrimaries::try_from(code).ok());
                let known = known.and_then(|code| ColorPrimaries::try_from(code).ok()).ok_or_else(unknown)?;
                let white = match primaries {
                    4 | 8 => WHITE_C,
                    10 => Chromaticity { x: 1.0 / 3.0, y: 1.0 / 3.0 },
                    11 => Chromaticity { x: 0.314, y: 0.351 },
                    _ => Chromaticity::D65,
                };
                Some([known.red, known.green, known.blue, white])
            }
        };
        let name = match primaries {
            SRGB | UNSPECIFIED => "sRGB",
            9 => "BT.2020",
            11 => "DCI-P3",
            12 => "Display P3",
            _ => "other",
        };
        Ok(Self { name: format!("{name} primaries, {curve_name} curve"), curve, primaries: chromaticities })
    }

    /// The space of a gamma and of chromaticities: white, red, green and blue. Both are in units of 1/100,000. None: that
    /// of sRGB.
    ///
    /// # Errors
    /// Why the colours cannot be converted.
    pub fn of_gamma(gamma: Option<u32>, chromaticities: Option<[u32; 8]>) -> Result<Self, String> {
        /// The exponent that files in sRGB state for programs that know no curve but powers.
        const SRGB: f64 = 0.45455;
        /// libpng takes exponents as equal that differ by less.
        const SAME: f64 = 0.05;
        const EXPONENTS: std::ops::RangeInclusive<f64> = 0.1..=10.0;
        let (curve, curve_name) = match gamma.map(|gamma| f64::from(gamma) / 1e5) {
            None => (Curve::Srgb, "sRGB".to_owned()),
            Some(gamma) if (gamma / SRGB - 1.0).abs() < SAME => (Curve::Srgb, "sRGB".to_owned()),
            Some(gamma) if EXPONENTS.contains(&gamma) => {
                (Curve::Power(1.0 / gamma), format!("gamma {:.2}", 1.0 / gamma))
            }
            Some(gamma) => return Err(format!("its gamma is {gamma}")),
        };
        let primaries = chromaticities.map(|values| {
            let [white, red, green, blue] = [0, 1, 2, 3]
                .map(|at| Chromaticity { x: values[2 * at] as f32 / 1e5, y: values[2 * at + 1] as f32 / 1e5 });
            [red, green, blue, white]
        });
        if let Some([red, green, blue, white]) = primaries {
            // Twice the area of the triangle of colours: that of sRGB is 0.22.
            let area = (green.x - red.x) * (blue.y - red.y) - (blue.x - red.x) * (green.y - red.y);
            let is_white = [white.x, white.y].iter().all(|value| (0.1..=1.0).contains(value));
            let are_colours = [red, green, blue].iter().all(|colour| colour.x.max(colour.y) <= 1.0);
            if !is_white || !are_colours || area.abs() < 0.02 {
                return Err("its chromaticities are those of no colour space".into());
            }
        }
        let name = if primaries.is_some() { "stated" } else { "sRGB" };
        Ok(Self { name: format!("{name} primaries, {curve_name} curve"), curve, primaries })
    }

    /// For each of so many samples, the first one black and the last one white, the sample of 8 bits with the curve of
    /// sRGB. None: the curve is that already.
    pub fn curve_table(&self, samples: usize) -> Option<Vec<u8>> {
        if self.curve == Curve::Srgb {
            return None;
        }
        let most = (samples - 1) as f64;
        Some((0..samples).map(|at| srgb(self.curve.linear(at as f64 / most))).collect())
    }

    /// The profile of its primaries with the curve of sRGB. None: its primaries are those of sRGB.
    pub fn primaries_profile(&self) -> Option<ColorProfile> {
        let [red, green, blue, white] = self.primaries?;
        let mut profile = ColorProfile::new_srgb();
        profile.update_rgb_colorimetry(white.to_xyyb(), ColorPrimaries { red, green, blue });
        Some(profile)
    }
}

impl Curve {
    /// The brightness of a sample, where 1 is white paper. Highlights that are brighter are compressed.
    fn linear(self, sample: f64) -> f64 {
        match self {
            Self::Srgb if sample <= 0.04045 => sample / 12.92,
            Self::Srgb => ((sample + 0.055) / 1.055).powf(2.4),
            Self::Power(exponent) => sample.powf(exponent),
            Self::Pq => compressed(pq_nits(sample) / PAPER),
            Self::Hlg => compressed(hlg_nits(sample) / PAPER),
        }
    }
}

/// Brightness of white paper in candela a square metre (ITU-R BT.2408-7, 2.1).
const PAPER: f64 = 203.0;

/// SMPTE ST 2084, in candela a square metre.
fn pq_nits(sample: f64) -> f64 {
    const M1: f64 = 1305.0 / 8192.0;
    const M2: f64 = 2523.0 / 32.0;
    const C1: f64 = 107.0 / 128.0;
    const C2: f64 = 2413.0 / 128.0;
    const C3: f64 = 2392.0 / 128.0;
    let root = sample.powf(1.0 / M2);
    10_000.0 * ((root - C1).max(0.0) / (C2 - C3 * root)).powf(1.0 / M1)
}

/// ITU-R BT.2100-2, on a display of 1000 candela a square metre. Its gamma is applied to each sample alone.
fn hlg_nits(sample: f64) -> f64 {
    const A: f64 = 0.178_832_77;
    const B: f64 = 0.284_668_92;
    const C: f64 = 0.559_910_73;
    let scene = if sample <= 0.5 { sample * sample / 3.0 } else { (((sample - C) / A).exp() + B) / 12.0 };
    1000.0 * scene.powf(1.2)
}

/// Leaves what is at most this bright as it is, and fits what is brighter between it and white.
fn compressed(linear: f64) -> f64 {
    const KNEE: f64 = 0.8;
    if linear <= KNEE { linear } else { KNEE + (1.0 - KNEE) * (1.0 - (-(linear - KNEE) / (1.0 - KNEE)).exp()) }
}

/// The sample of 8 bits with the curve of sRGB (IEC 61966-2-1).
fn srgb(linear: f64) -> u8 {
    let linear = linear.clamp(0.0, 1.0);
    let sample = if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    (255.0 * sample).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_meet_the_values_of_their_standards() {
        // ITU-R BT.2408-7, table 1: white paper is 58 % in PQ and 75 % in HLG, both 203 candela.
        assert!((pq_nits(0.58) - 203.0).abs() < 3.0, "{}", pq_nits(0.58));
        assert!((hlg_nits(0.75) - 203.0).abs() < 3.0, "{}", hlg_nits(0.75));
        assert!((pq_nits(1.0) - 10_000.0).abs() < 1.0 && pq_nits(0.0) < 1e-6);
        assert!((hlg_nits(1.0) - 1000.0).abs() < 1.0);
        assert_eq!([0.0, 0.2, 0.8].map(compressed), [0.0, 0.2, 0.8]);
        assert!(compressed(1.0) < 1.0 && compressed(50.0) <= 1.0 && compressed(2.0) > compressed(1.5));
    }

    #[test]
    fn numbers_of_srgb_change_nothing() {
        for (primaries, transfer) in [(1, 13), (1, 1), (2, 2), (1, 6)] {
            let space = ColourSpace::of_codes(primaries, transfer).unwrap();
            assert!(space.curve_table(256).is_none() && space.primaries_profile().is_none());
        }
        for gamma in [None, Some(45_455), Some(45_000), Some(47_000)] {
            assert!(ColourSpace::of_gamma(gamma, None).unwrap().curve_table(256).is_none());
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_errors() {
        for (primaries, transfer) in [(3, 13), (1, 9), (1, 0), (200, 13), (70_00, 13), (1, 3)] {
            assert!(ColourSpace::of_codes(primaries, transfer).is_err(), "{primaries} {transfer}");
        }
        assert!(ColourSpace::of_gamma(Some(0), None).is_err());
        assert!(ColourSpace::of_gamma(Some(u32::MAX), None).is_err());
        let srgb = [31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000];
        assert!(ColourSpace::of_gamma(None, Some(srgb)).is_ok());
        for at in 0..8 {
            for value in [0, u32::MAX] {
                let mut broken = srgb;
                broken[at] = value;
                // No value panics. Those of white and of a line of colours are refused.
                let space = ColourSpace::of_gamma(None, Some(broken));
                assert!(space.is_err() || at >= 2, "{broken:?}");
            }
        }
        assert!(ColourSpace::of_gamma(None, Some([30_000; 8])).is_err());
    }
}
