//! Rounding to powers of two (`FLOAT8E8M0`, attribute `round_mode` of opset 24).

use fewbit_core::{Error, Node, Result};

/// Where a number between two powers of two goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rounding {
    /// To the larger one.
    Up,
    /// To the smaller one.
    Down,
    /// To the nearer one, ties up.
    Nearest,
}

impl Rounding {
    pub(super) fn of(node: &Node) -> Result<Self> {
        Ok(match node.string("round_mode")?.unwrap_or("up") {
            "up" => Rounding::Up,
            "down" => Rounding::Down,
            "nearest" => Rounding::Nearest,
            other => {
                return Err(Error::bad_input(format!("unknown rounding `{other}`"))
                    .at("attribute `round_mode`"));
            }
        })
    }
}

/// The code of a number: its exponent, its sign ignored; 255 for what is not finite. Past the
/// largest power the code stays there when `saturate`, and becomes NaN otherwise.
pub(super) fn encode(value: f32, rounding: Rounding, saturate: bool) -> u8 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as u8;
    if exponent == 0xff {
        return 0xff;
    }
    let fraction = bits & 0x7f_ffff;
    let half = 0x40_0000;
    let up = match rounding {
        Rounding::Up => fraction > 0,
        Rounding::Down => false,
        // Numbers too small to be normal are nearer to the smallest power only above the half.
        Rounding::Nearest => fraction > half || (fraction == half && exponent > 0),
    };
    let limit = if saturate { 0xfe } else { 0xff };
    (exponent + up as u8).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rounding_takes_its_power() {
        let modes = [Rounding::Up, Rounding::Down, Rounding::Nearest];
        let all = |v: f32| modes.map(|r| encode(v, r, true));
        assert_eq!(all(1.0), [127, 127, 127]);
        assert_eq!(all(1.25), [128, 127, 127]);
        assert_eq!(all(-1.5), [128, 127, 128]);
        assert_eq!(all(f32::INFINITY), [255; 3]);
        assert_eq!(all(f32::MAX), [254; 3]);
        assert_eq!(encode(f32::MAX, Rounding::Up, false), 255);
    }
}
