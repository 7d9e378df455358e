//! Numbers to strings and back, as the `Cast` specification writes them.

use fewbit_core::{DType, Error, Result, Tensor};

/// Parses every string as a number: plain and scientific notation, `INF`, `NaN`.
///
/// # Errors
/// When a string is no number of the target type.
pub(super) fn parse(input: &Tensor, to: DType) -> Result<Tensor> {
    let strings = input.strings().unwrap_or_default();
    let shape = input.shape().to_vec();
    match to {
        DType::I64 => Tensor::from_slice(shape, &all::<i64>(strings, to)?),
        DType::U64 => Tensor::from_slice(shape, &all::<u64>(strings, to)?),
        DType::F32 => Tensor::from_slice(shape, &all::<f32>(strings, to)?),
        // The remaining types are exact in a double.
        _ => Tensor::from_f64(to, shape, &all::<f64>(strings, to)?),
    }
}

fn all<T: std::str::FromStr>(strings: &[Vec<u8>], to: DType) -> Result<Vec<T>> {
    let number = |bytes: &Vec<u8>| {
        let text = std::str::from_utf8(bytes).ok().map(str::trim);
        text.and_then(|t| t.parse().ok()).ok_or_else(|| {
            Error::bad_input(format!("`{}` is no {to}", String::from_utf8_lossy(bytes)))
        })
    };
    strings.iter().map(number).collect()
}

/// The shortest text that reads back as the same number.
///
/// # Errors
/// For complex numbers.
pub(super) fn print(input: &Tensor) -> Result<Tensor> {
    let texts: Vec<String> = match input.dtype() {
        DType::F64 => input.to_f64()?.iter().map(|v| float(format!("{v:?}"))).collect(),
        DType::Bool => input.to_i64()?.iter().map(|v| (*v != 0).to_string()).collect(),
        DType::U64 => input.to_i64()?.iter().map(|v| (*v as u64).to_string()).collect(),
        dtype if dtype.is_int() => input.to_i64()?.iter().map(i64::to_string).collect(),
        _ => input.to_f32()?.iter().map(|v| float(format!("{v:?}"))).collect(),
    };
    let bytes = texts.into_iter().map(String::into_bytes).collect();
    Tensor::from_strings(input.shape().to_vec(), bytes)
}

/// Exponents get a sign and two digits, as C and Python write them.
fn float(text: String) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None if text == "inf" => "INF".into(),
        None if text == "-inf" => "-INF".into(),
        None => text,
    }
}
