//! A look at the markers of a JPEG file before it is decoded.
//!
//! The decoder fills what is missing with grey, so a truncated file would pass unseen; and it
//! converts CMYK in a way that differs from every other program. Both are told here.
//!
//! Specification: ITU-T T.81, annex B.

use fewbit_core::{Error, Result};

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// Walks the markers to the end of the image.
///
/// # Errors
/// `FB-3330` for a file that ends early or has no frame, `FB-4330` for CMYK, `FB-4331` for more
/// than 8 bits, `FB-4334` for lossless and arithmetic coding.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut at = 2;
    let mut frames = 0;
    loop {
        let marker = next_marker(bytes, &mut at)?;
        match marker {
            END_OF_IMAGE if frames > 0 => return Ok(()),
            END_OF_IMAGE => return Err(damaged("no image before the end marker", at)),
            // Restart markers and TEM stand alone.
            0xD0..=0xD7 | 0x01 => continue,
            _ => {}
        }
        let segment = segment(bytes, &mut at)?;
        if is_frame(marker) {
            check_frame(marker, segment, at)?;
            frames += 1;
        }
        if marker == START_OF_SCAN {
            skip_scan(bytes, &mut at)?;
        }
    }
}

fn is_frame(marker: u8) -> bool {
    // C4, C8 and CC are tables and reserved.
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

fn damaged(what: &str, at: usize) -> Error {
    Error::bad_input(what).code("FB-3330").at(format!("byte {at}"))
}

fn truncated(bytes: &[u8]) -> Error {
    damaged("the JPEG file is truncated: its end marker is missing", bytes.len())
}

fn next_marker(bytes: &[u8], at: &mut usize) -> Result<u8> {
    if *bytes.get(*at).ok_or_else(|| truncated(bytes))? != 0xFF {
        return Err(damaged("expected a JPEG marker", *at));
    }
    // Any number of fill bytes may stand before the code.
    while bytes.get(*at) == Some(&0xFF) {
        *at += 1;
    }
    let marker = *bytes.get(*at).ok_or_else(|| truncated(bytes))?;
    *at += 1;
    Ok(marker)
}

fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a [u8]> {
    let length = bytes.get(*at..*at + 2).ok_or_else(|| truncated(bytes))?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < 2 {
        return Err(damaged("a JPEG segment shorter than its length field", *at));
    }
    let body = bytes.get(*at + 2..*at + length).ok_or_else(|| truncated(bytes))?;
    *at += length;
    Ok(body)
}

fn check_frame(marker: u8, segment: &[u8], at: usize) -> Result<()> {
    let &[bits, _, _, _, _, components, ..] = segment else {
        return Err(damaged("a JPEG frame header that is too short", at));
    };
    let refuse = |what: &str, code, hint: &str| {
        Err(Error::unsupported(what).code(code).at(format!("frame before byte {at}")).hint(hint))
    };
    if !matches!(marker, 0xC0..=0xC2) {
        let what = "lossless, hierarchical and arithmetic JPEG are not supported";
        return refuse(what, "FB-4334", "save it as a baseline or progressive JPEG");
    }
    match (bits, components) {
        (8, 1 | 3) => Ok(()),
        (8, 4) => {
            refuse("the image is CMYK, not RGB", "FB-4330", "convert it to RGB, or leave it out")
        }
        (8, n) => Err(damaged(&format!("a JPEG of {n} components"), at)),
        (bits, _) => {
            let what = format!("{bits} bits per channel; 8 are supported");
            refuse(&what, "FB-4331", "convert it to 8 bits per channel")
        }
    }
}

/// Skips entropy-coded data, in which FF is followed by 0 or a restart marker.
fn skip_scan(bytes: &[u8], at: &mut usize) -> Result<()> {
    loop {
        let rest = bytes.get(*at..).unwrap_or_default();
        let next = rest.iter().position(|b| *b == 0xFF).ok_or_else(|| truncated(bytes))?;
        *at += next;
        match bytes.get(*at + 1) {
            Some(0x00 | 0xD0..=0xD7) => *at += 2,
            Some(0xFF) => *at += 1,
            Some(_) => return Ok(()),
            None => return Err(truncated(bytes)),
        }
    }
}
