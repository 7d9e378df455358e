use super::*;

/// Bytes of a linear congruential generator, as the oracle draws them.
fn stream(len: usize, mut state: u32) -> Vec<u8> {
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// FNV-1a over the bits of the numbers; every NaN counts alike.
fn digest(values: &[f32]) -> u64 {
    let bits = values.iter().map(|v| if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() });
    bits.flat_map(u32::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn decoded(ty: BlockType, blocks: usize) -> Vec<f32> {
    let mut out = vec![0.0; ty.elements() * blocks];
    dequantize(ty, &stream(ty.bytes() * blocks, ty.ggml_id()), &mut out).unwrap();
    out
}

/// Eight random blocks, decoded by `gguf` 0.19 (PyPI).
const GOLDEN: &[(&str, u64)] = &[
    ("Q4_0", 0x15f5570ca466296c),
    ("Q4_1", 0xa2012b32328033e2),
    ("Q5_0", 0x3bfc682399d647f4),
    ("Q5_1", 0x880a6ba9250d5c57),
    ("Q8_0", 0xcd88afe177b161c6),
    ("Q2_K", 0x974447084ab67a80),
    ("Q3_K", 0xd91a22adb00c9647),
    ("Q4_K", 0x76a57ed9e67f1a17),
    ("Q5_K", 0x501865858f66c48e),
    ("Q6_K", 0x02a99b50b94b9d40),
    ("IQ2_XXS", 0x2c348fce80abb59e),
    ("IQ2_XS", 0xd901b312ff774ae8),
    ("IQ3_XXS", 0xc793e60898bf9ebb),
    ("IQ1_S", 0x9b8846be9034c1db),
    ("IQ4_NL", 0x96cae9dd6e6914c0),
    ("IQ3_S", 0x0b137dc47ef2a581),
    ("IQ2_S", 0xc9ca508d9b0dae92),
    ("IQ4_XS", 0xa1ba6e43f666c478),
    ("IQ1_M", 0xecb54455d8876cdb),
    ("BF16", 0xe4fcd3103da94bfe),
    ("TQ1_0", 0x46f441652fb68136),
    ("TQ2_0", 0xe37d344483ac5ad6),
    ("MXFP4", 0xa09029fff9f00d30),
    ("NVFP4", 0x92934bd913e6ecf2),
];

#[test]
fn decoders_equal_those_of_gguf() {
    for &(name, want) in GOLDEN {
        let ty = BlockType::from_name(name).unwrap();
        assert_eq!(digest(&decoded(ty, 8)), want, "{ty}");
    }
}

const ORACLE: &str = "
import sys, numpy, gguf
data = numpy.frombuffer(sys.stdin.buffer.read(), dtype=numpy.uint8)
kind = gguf.GGMLQuantizationType[sys.argv[1]]
values = gguf.quants.dequantize(data.reshape(1, -1), kind)
sys.stdout.buffer.write(values.astype('<f4').tobytes())
";

/// What `gguf` decodes `bytes` to.
fn ask(python: &std::ffi::OsStr, ty: BlockType, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new(python)
        .args(["-W", "ignore", "-c", ORACLE, ty.name()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the `gguf` package is needed");
    output.stdout
}

#[test]
fn decoders_equal_those_of_gguf_on_many_blocks() {
    let Some(python) = std::env::var_os("FEWBIT_PYTHON") else {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
        return;
    };
    for &(name, _) in GOLDEN {
        let ty = BlockType::from_name(name).unwrap();
        let bytes = stream(ty.bytes() * 500, 7);
        let mut ours = vec![0.0; ty.elements() * 500];
        dequantize(ty, &bytes, &mut ours).unwrap();
        let theirs = decode_f32(DType::F32, &ask(&python, ty, &bytes), ours.len()).unwrap();
        assert_eq!(digest(&ours), digest(&theirs), "{ty}");
    }
}

#[test]
fn signs_and_two_bits_by_the_definition() {
    let mut out = [0.0; 128];
    let mut block = [0; 18];
    block[1] = 0x40; // 2.0 in binary16
    block[2] = 0b10;
    dequantize(BlockType::Q1_0, &block, &mut out).unwrap();
    assert_eq!(out[..3], [-2.0, 2.0, -2.0]);
    block[2] = 0b1110_0100;
    dequantize(BlockType::Q2_0, &block, &mut out[..64]).unwrap();
    assert_eq!(out[..4], [-2.0, 0.0, 2.0, 4.0]);
}

#[test]
fn numbers_and_names_are_unique_and_found() {
    for &ty in BlockType::ALL {
        assert_eq!(BlockType::from_ggml_id(ty.ggml_id()).unwrap(), ty);
        assert_eq!(BlockType::from_name(&ty.name().to_lowercase()).unwrap(), ty);
    }
    assert!(BlockType::from_ggml_id(31).unwrap_err().what().contains("removed"));
    assert!(BlockType::from_ggml_id(999).is_err());
    assert!(BlockType::from_name("Q4").unwrap_err().advice().unwrap().contains("Q4_K"));
}

#[test]
fn lengths_are_checked() {
    assert_eq!(BlockType::Q4K.row_bytes(512).unwrap(), 288);
    assert_eq!(BlockType::Q4K.row_elements(288).unwrap(), 512);
    assert!(BlockType::Q4K.row_bytes(576).is_err());
    assert!(BlockType::Q4K.row_elements(143).is_err());
    assert!(BlockType::F64.row_bytes(usize::MAX).is_err());
    assert!(BlockType::Q1_0.row_elements(usize::MAX - usize::MAX % 18).is_err());
    assert!(dequantize(BlockType::Q8_0, &[0; 34], &mut [0.0; 31]).is_err());
}

#[test]
fn plain_arrays_are_numbers() {
    let mut out = [0.0; 2];
    dequantize(BlockType::I16, &[1, 0, 0xff, 0xff], &mut out).unwrap();
    assert_eq!(out, [1.0, -1.0]);
}
