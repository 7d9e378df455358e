"""Writes cases in the layout of the ONNX backend suite, with outputs computed by ONNX Runtime.

They cover what the suite leaves out: com.microsoft operators, operators on codes whose scales are
constant, older operator sets, directions and lengths of recurrent networks, reductions over axes that lie apart, windows that hang over, products
in any order of axes. Usage: ort_cases.py FOLDER
"""

import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(7)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def case(name, op, inputs, outputs, opset=17, domain="", given=None, **attributes):
    """Runs one node in ONNX Runtime and writes model, inputs and outputs.

    The inputs at the positions `given` are those of the model, others are constants; all by default.
    """
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    is_given = lambda i: given is None or i in given
    constants = [numpy_helper.from_array(x, n) for i, (n, x) in enumerate(zip(names, inputs)) if n and not is_given(i)]
    given = {n: x for i, (n, x) in enumerate(zip(names, inputs)) if n and is_given(i)}
    node = helper.make_node(op, names, outputs, domain=domain, **attributes)
    described = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in given.items()
    ]
    wanted = [helper.make_empty_tensor_value_info(n) for n in outputs if n]
    graph = helper.make_graph([node], name, described, wanted, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, given)
    data = os.path.join(sys.argv[1], name, "test_data_set_0")
    os.makedirs(data)
    onnx.save(model, os.path.join(sys.argv[1], name, "model.onnx"))
    for kind, arrays in (("input", list(given.values())), ("output", results)):
        for i, array in enumerate(arrays):
            proto = numpy_helper.from_array(np.asarray(array))
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as file:
                file.write(proto.SerializeToString())


MS = {"domain": "com.microsoft", "opset": 17}


def microsoft():
    x = normal(2, 3, 8)
    case("ms_gelu", "Gelu", [x], ["y"], **MS)
    case("ms_bias_gelu", "BiasGelu", [x, normal(8)], ["y"], **MS)
    case("ms_fast_gelu", "FastGelu", [x], ["y"], **MS)
    case("ms_fast_gelu_bias", "FastGelu", [x, normal(8)], ["y"], **MS)
    case("ms_quick_gelu", "QuickGelu", [x], ["y"], alpha=1.5, **MS)
    case("ms_trilu", "Trilu", [x, np.array(1)], ["y"], upper=0, **MS)
    for mode in ("bilinear", "nearest", "bicubic"):
        inputs = [normal(1, 2, 5, 4), rng.uniform(-1.3, 1.3, (1, 3, 3, 2)).astype(np.float32)]
        attributes = {"mode": mode, "padding_mode": "border", "align_corners": 1}
        case(f"ms_grid_{mode}", "GridSample", inputs, ["y"], **attributes, **MS)
    skip, gamma, beta, bias = normal(2, 3, 8), normal(8), normal(8), normal(8)
    case("ms_skip", "SkipLayerNormalization", [x, skip, gamma, beta], ["y"], epsilon=1e-5, **MS)
    all_outputs = ["y", "", "", "sum"]
    case("ms_skip_bias", "SkipLayerNormalization", [x, skip, gamma, beta, bias], all_outputs, **MS)
    op = "SkipSimplifiedLayerNormalization"
    case("ms_skip_simplified", op, [x, skip, gamma, bias], all_outputs, epsilon=1e-6, **MS)
    ids = np.array([[1, 4, 0], [2, 2, 3]], np.int32)
    segments = np.array([[0, 0, 1], [0, 1, 1]], np.int32)
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    tables = [normal(5, 8), normal(6, 8), normal(2, 8)]
    inputs = [ids, segments, *tables, gamma, beta, mask]
    case("ms_embed", "EmbedLayerNormalization", inputs, ["y", "m"], epsilon=1e-6, **MS)
    codes = [rng.integers(0, 256, x.shape, np.uint8) for x in (*tables, gamma, beta)]
    scales = list(rng.uniform(0.01, 0.02, 5).astype(np.float32))
    zeros = list(rng.integers(100, 150, 5, np.uint8))
    scales, zeros = [[np.array(x) for x in numbers] for numbers in (scales, zeros)]
    for name, kept in (("", mask), ("_unmasked", None)):
        inputs = [ids, segments, *codes, kept, *scales, *zeros]
        case(f"ms_embed_codes{name}", "QEmbedLayerNormalization", inputs, ["y", "m"], **MS)


def attention():
    """Heads with biases, padding and caches; padded rows, which mean nothing, are left out."""
    multi_head()
    self_attention()
    grouped()
    rotary()


def multi_head():
    op, b, s, n, h, p = "MultiHeadAttention", 2, 3, 2, 4, 2
    qkv = [normal(b, s, n * h) for _ in range(3)]
    bias, of_heads = normal(3 * n * h), normal(1, n, s, s)
    lengths, ends = np.array([2, 3], np.int32), np.array([2, 3, 0, 2, 5, 0, 2, 5], np.int32)
    padded, mask = np.array([[1, 1, 0], [0, 0, 0]], np.int32), rng.integers(0, 2, (b, s, s), np.int32)
    past, all_keys = [normal(b, n, p, h), normal(b, n, p, h)], ["y", "keys", "values"]
    cross, wide = [qkv[0], normal(b, 5, n * h), normal(b, 5, n * 6)], [*qkv[:2], normal(b, s, n * 6)]
    longer = rng.integers(0, 2, (b, p + s), np.int32)
    lower = {"mask_filter_value": -3.4028234663852886e38}
    cases = {
        "plain": (qkv, ["y"], {}),
        "cross": (cross, ["y"], {"scale": 0.3}),
        "bias": ([*qkv, bias], ["y"], {}),
        "bias_wide": ([*wide, normal(2 * n * h + n * 6)], ["y"], {}),
        "lengths": ([*qkv, bias, lengths], ["y"], {}),
        "ends": ([*qkv, None, ends], ["y"], {}),
        "padded": ([*qkv, bias, padded], ["y"], {}),
        "padded_lower": ([*qkv, None, padded, of_heads], ["y"], lower),
        "mask": ([*qkv, None, mask], ["y"], {"unidirectional": 1}),
        "of_heads": ([*qkv, None, padded, of_heads], ["y"], {"mask_filter_value": -2.0}),
        "of_samples": ([*qkv, None, None, normal(b, 1, s, s)], ["y"], {}),
        "present": ([*qkv, bias], all_keys, {}),
        "past": ([*qkv, bias, longer, None, *past], all_keys, {}),
        "causal": ([*qkv, None, None, None, *past], all_keys, {"unidirectional": 1}),
        "apart": ([qkv[0], normal(b, n, 5, h), normal(b, n, 5, h)], ["y"], {}),
    }
    for name, (inputs, outputs, attributes) in cases.items():
        case(f"ms_heads_{name}", op, inputs, outputs, num_heads=n, **attributes, **MS)
    step = [normal(b, 1, n * h) for _ in range(3)]
    inputs = [*step, bias, None, normal(1, n, 1, p + 1), *past]
    case("ms_heads_step", op, inputs, all_keys, num_heads=n, unidirectional=1, **MS)


def self_attention():
    op, b, s, d, n, h, p = "Attention", 2, 3, 5, 2, 4, 2
    x, weight, bias = normal(b, s, d), normal(d, 3 * n * h), normal(3 * n * h)
    lengths, ends = np.array([2, 3], np.int32), np.array([2, 3, 0, 2, 5, 0, 2, 5], np.int32)
    between, padded = np.array([2, 3, 0, 1], np.int32), np.array([[1, 1, 0], [0, 0, 0]], np.int32)
    mask, longer = [rng.integers(0, 2, size, np.int32) for size in ((b, s, s), (b, p + s))]
    past, sizes = normal(2, b, n, p, h), {"qkv_hidden_sizes": [n * h, n * h, n * 3]}
    wide = [x, normal(d, 2 * n * h + n * 3), normal(2 * n * h + n * 3)]
    causal = {"unidirectional": 1}
    cases = {
        "plain": ([x, weight, bias], ["y"], {"scale": 0.7}),
        "without_bias": ([x, weight, None, lengths], ["y"], {}),
        "lengths": ([x, weight, bias, lengths], ["y"], causal),
        "between": ([x, weight, bias, between], ["y"], {}),
        "ends": ([x, weight, bias, ends], ["y"], {}),
        "padded": ([x, weight, bias, padded], ["y"], {}),
        "mask": ([x, weight, bias, mask], ["y"], {"mask_filter_value": -3.0}),
        "bias": ([x, weight, bias, padded, None, normal(b, n, s, s)], ["y"], causal),
        "wide": (wide, ["y"], sizes),
        "present": ([x, weight, bias], ["y", "present"], causal),
        "past": ([x, weight, bias, longer, past], ["y", "present"], causal),
        "step": ([x[:, :1], weight, bias, longer[:, :3], past], ["y", "present"], causal),
    }
    for name, (inputs, outputs, attributes) in cases.items():
        case(f"ms_attention_{name}", op, inputs, outputs, num_heads=n, **attributes, **MS)
    attention_on_codes(x, bias, {"lengths": (lengths, None), "past": (longer, past)}, n)


def attention_on_codes(x, bias, masks, n):
    op, columns = "QAttention", len(bias)
    codes = np.round(x * 20 + 128).clip(0, 255).astype(np.uint8)
    weight = rng.integers(-90, 90, (x.shape[2], columns), np.int8)
    scale, zero = np.array(0.05, np.float32), np.array(127, np.uint8)
    for i, (name, (mask, past)) in enumerate(masks.items()):
        # One scale, then one for each column.
        scales = rng.uniform(0.01, 0.02, (columns,) if i else ()).astype(np.float32)
        zeros = np.array(3, np.int8) if not i else np.zeros(columns, np.int8)
        inputs = [codes, weight, bias, scale, scales, mask, zero, zeros, past]
        outputs = ["y", "present"] if past is not None else ["y"]
        case(f"ms_codes_{name}", op, inputs, outputs, num_heads=n, unidirectional=1, **MS)


def fused():
    a, b, alpha = normal(2, 3, 4, 5), normal(2, 3, 5, 6), {"alpha": 0.3}
    case("ms_matmul", "FusedMatMul", [a, b], ["y"], **alpha, **MS)
    swapped = {"transA": 1, "transB": 1}
    both = [np.swapaxes(a, 2, 3).copy(), np.swapaxes(b, 2, 3).copy()]
    case("ms_matmul_swapped", "FusedMatMul", both, ["y"], **swapped, **MS)
    case("ms_transpose_matmul", "TransposeMatMul", [a, both[1]], ["y"], transB=1, **alpha, **MS)
    case("ms_matmul_vector", "FusedMatMul", [normal(5), both[1]], ["y"], **swapped, **MS)
    for i, flags in enumerate(({}, {"transA": 1}, {"transB": 1}, swapped)):
        left = normal(5, 2, 3, 4) if "transA" in flags else normal(4, 2, 3, 5)
        right = normal(6, 2, 3, 5) if "transB" in flags else normal(5, 2, 3, 6)
        flags = {"transBatchA": 1, "transBatchB": 1, **flags}
        case(f"ms_matmul_batch_{i}", "FusedMatMul", [left, right], ["y"], **flags, **MS)
    x, weight, bias = normal(1, 4, 6, 6), normal(5, 4, 3, 3), normal(5)
    z, window = normal(1, 5, 6, 6), {"pads": [1, 1, 1, 1]}
    parameters = {"LeakyRelu": [0.2], "Clip": [-0.5, 1.5], "HardSigmoid": [0.3, 0.4]}
    for name in ("Relu", "Sigmoid", "Tanh", *parameters):
        attributes = {"activation": name, **window}
        if name in parameters:
            attributes["activation_params"] = parameters[name]
        case(f"ms_conv_{name}", "FusedConv", [x, weight, bias], ["y"], **attributes, **MS)
    case("ms_conv_sum", "FusedConv", [x, weight, None, z], ["y"], activation="Relu", **window, **MS)
    case("ms_conv_sum_bias", "FusedConv", [x, weight, bias, z], ["y"], **window, **MS)
    names = "Relu Sigmoid Tanh Softplus Softsign".split()
    alphas = {"Elu": {"alpha": 0.7}, "LeakyRelu": {"alpha": 0.2}, "ThresholdedRelu": {"alpha": 0.4}}
    alphas |= {"HardSigmoid": {"alpha": 0.3, "beta": 0.4}, "Selu": {"alpha": 1.6, "gamma": 1.1}}
    for name in (*names, *alphas):
        attributes = {f"activation_{key}": value for key, value in alphas.get(name, {}).items()}
        attributes |= {"activation": name, "transB": 1, "alpha": 0.5, "beta": 2.0}
        inputs = [normal(3, 4), normal(5, 4), normal(5)]
        case(f"ms_gemm_{name}", "FusedGemm", inputs, ["y"], **attributes, **MS)


def grouped():
    op, n, g, h, p = "GroupQueryAttention", 4, 2, 16, 5
    angles = rng.uniform(-3, 3, (12, h // 2)).astype(np.float32)
    caches = [np.cos(angles), np.sin(angles)]
    turn = {"do_rotary": 1}
    settings = {
        "plain": ([], {}),
        "scale": ([], {"scale": 0.1, "softcap": 2.0}),
        "window": ([], {"local_window_size": 3, "smooth_softmax": 0}),
        "rotary": (caches, turn),
        "interleaved": (caches, {"rotary_interleaved": 1, **turn}),
    }
    for b, s, past in ((1, 6, 0), (2, 6, 0), (1, 1, p), (2, 1, p), (1, 3, p), (1, 1, 9), (2, 1, 9)):
        total = s + min(past, p)
        lengths = np.full(b, total - 1, np.int32)
        if past == 9:
            lengths[0] = 2
        given = [lengths, np.array(total, np.int32)]
        cache = [normal(b, g, past, h) for _ in range(2)] if past else [None, None]
        qkv = [normal(b, s, n * h), normal(b, s, g * h), normal(b, s, g * h)]
        packed = [normal(b, s, (n + 2 * g) * h), None, None]
        whose = np.tile(np.arange(3, 3 + s), (b, 1))
        biases = [None, None, None, normal(b, 1, s, total)]
        each = {
            **settings,
            "packed": (caches, turn),
            "positions": ([*caches, whose], turn),
            "bias": (biases, {"softcap": 1.5}),
            "smooth": (biases, {"smooth_softmax": 1, "local_window_size": 2}),
            "sinks": ([*caches, None, None, normal(n)], {"local_window_size": 3, **turn}),
        }
        for name, (more, attributes) in each.items():
            inputs = [*(packed if name == "packed" else qkv), *cache, *given, *more]
            attributes = {"num_heads": n, "kv_num_heads": g, **attributes}
            outputs = ["y", "keys", "values"]
            case(f"ms_grouped_{b}_{s}_{past}_{name}", op, inputs, outputs, **attributes, **MS)


def rotary():
    op, b, s, n, h = "RotaryEmbedding", 2, 3, 2, 8
    angles = rng.uniform(-3, 3, (9, h // 2)).astype(np.float32)
    whole = [np.cos(angles), np.sin(angles)]
    part = [np.ascontiguousarray(x[:, : h // 4]) for x in whole]
    first, ids = np.array([4]), np.array([[0, 3, 1], [5, 8, 2]])
    packed, apart = normal(b, s, n * h), normal(b, n, s, h)
    of_part = {"num_heads": n, "rotary_embedding_dim": h // 2}
    case("ms_rotary", op, [packed, first, *whole], ["y"], **MS)
    case("ms_rotary_scale", op, [packed, ids, *whole], ["y"], scale=2.0, **MS)
    case("ms_rotary_interleaved", op, [packed, ids, *whole], ["y"], interleaved=1, **MS)
    case("ms_rotary_apart", op, [apart, ids, *whole], ["y"], **MS)
    case("ms_rotary_part", op, [packed, ids, *part], ["y"], **of_part, **MS)
    case("ms_rotary_part_apart", op, [apart, first, *part], ["y"], **of_part, **MS)


def codes(dtype, *shape):
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max + 1, shape).astype(dtype)


def on_codes():
    for name, dtype in (("u8", np.uint8), ("i8", np.int8)):
        low = np.iinfo(dtype).min
        scale = lambda value: np.array(value, np.float32)
        zero = lambda code: np.array(low + code, dtype)
        y = lambda step, code: [scale(step), zero(code)]
        x = lambda *shape: [codes(dtype, *shape), scale(0.0517), zero(117)]
        w = lambda *shape: [codes(np.int8, *shape), scale(0.0213), np.array(0, np.int8)]
        scales = np.abs(normal(6)) * np.float32(0.02)
        each = [codes(np.int8, 6, 4, 3, 3), scales, np.zeros(6, np.int8)]
        bias = rng.integers(-2000, 2000, 6).astype(np.int32)
        inputs = [*x(1, 4, 9, 8), *each, *y(0.9, 90), bias]
        attributes = {"pads": [1, 0, 1, 2], "strides": [2, 1], "given": [0]}
        case(f"QLinearConv_{name}", "QLinearConv", inputs, ["y"], **attributes)
        inputs = [*x(1, 4, 9, 8), *w(4, 1, 3, 3), *y(0.4, 90)]
        case(f"QLinearConv_depthwise_{name}", "QLinearConv", inputs, ["y"], group=4, given=[0])
        columns = [codes(np.int8, 7, 6), scales, np.zeros(6, np.int8)]
        inputs = [*x(2, 5, 7), *columns, *y(1.3, 110)]
        case(f"QLinearMatMul_{name}", "QLinearMatMul", inputs, ["y"], given=[0])
        inputs = [*x(2, 5, 7), *x(2, 7, 6), *y(1.7, 110)]
        case(f"QLinearMatMul_computed_{name}", "QLinearMatMul", inputs, ["y"], given=[0, 3])
        inputs = [*x(5, 7), *w(6, 7), bias, *y(1.3, 110)]
        case(f"QGemm_{name}", "QGemm", inputs, ["y"], transB=1, given=[0], **MS)
        for op in ("Add", "Mul"):
            inputs = [*x(2, 3, 4), codes(dtype, 2, 3, 4), scale(0.0331), zero(99), *y(0.0713, 100)]
            case(f"QLinear{op}_{name}", f"QLinear{op}", inputs, ["y"], given=[0, 3], **MS)
        for op, step in (("Sigmoid", 0.004), ("LeakyRelu", 0.0317)):
            inputs = [*x(3, 50), *y(step, 20)]
            case(f"QLinear{op}_{name}", f"QLinear{op}", inputs, ["y"], given=[0], **MS)
        image = [*x(2, 5, 7, 7), *y(0.0173, 60)]
        pool = "QLinearGlobalAveragePool"
        case(f"{pool}_{name}", pool, image, ["y"], channels_last=0, given=[0], **MS)
        window = {"kernel_shape": [3, 3], "strides": [2, 2], **MS}
        case(f"QLinearAveragePool_{name}", "QLinearAveragePool", image, ["y"], given=[0], **window)
        inputs = [*y(0.0431, 80), *x(2, 3), codes(dtype, 2, 2), scale(0.0331), zero(99)]
        case(f"QLinearConcat_{name}", "QLinearConcat", inputs, ["y"], axis=1, given=[2, 5], **MS)


def recurrent():
    lengths = np.array([4, 2, 3], np.int32)
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            x, w, r = normal(4, 3, 5), normal(d, gates * 2, 5), normal(d, gates * 2, 2)
            b, h = normal(d, 2 * gates * 2), normal(d, 3, 2)
            inputs = [x, w, r, b, lengths, h]
            extra = {"hidden_size": 2, "direction": direction}
            if op == "LSTM":
                inputs += [normal(d, 3, 2), normal(d, 3 * 2)]
            outputs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
            case(f"{op}_{direction}", op, inputs, outputs, opset=14, **extra)
            # ONNX Runtime does not clip the cell state of an LSTM before `h`; the spec does.
            if op != "LSTM":
                case(f"{op}_{direction}_clip", op, inputs, outputs, opset=14, clip=0.4, **extra)
    x, w, r = normal(4, 3, 5), normal(1, 6, 5), normal(1, 6, 2)
    both = [x, w, r, normal(1, 12)]
    case("GRU_linear", "GRU", both, ["y", "h"], opset=14, hidden_size=2, linear_before_reset=1)
    functions = {"activations": ["HardSigmoid", "Relu"], "activation_alpha": [0.3]}
    case("GRU_functions", "GRU", both, ["y", "h"], opset=14, hidden_size=2, **functions)


def reductions():
    x, whole = normal(2, 3, 4, 5), rng.integers(-9, 9, (2, 3, 4, 5))
    names = "Sum Mean Max Min Prod L1 L2 SumSquare LogSumExp".split()
    for name in names:
        for i, axes in enumerate(([0, 2], [1, 2], [3], [-4], [1, 3])):
            arguments = {"opset": 11, "axes": axes, "keepdims": i % 2}
            case(f"Reduce{name}_{i}", f"Reduce{name}", [x], ["y"], **arguments)
    for name in "Sum Max Min Prod".split():
        case(f"Reduce{name}_i64", f"Reduce{name}", [whole], ["y"], opset=11, axes=[0, 2])
    case("ArgMax_last", "ArgMax", [whole], ["y"], opset=13, axis=2, select_last_index=1)


def normalizations():
    x = normal(2, 6, 4, 5)
    for name in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (0, 1, 2, 3):
            case(f"{name}_{axis}_11", name, [x], ["y"], opset=11, axis=axis)
            case(f"{name}_{axis}_13", name, [x], ["y"], opset=13, axis=axis)
    case("Softmax_f64", "Softmax", [x.astype(np.float64)], ["y"], opset=13, axis=1)
    parameters = [normal(6), normal(6)]
    for opset in (9, 14, 15):
        inputs = [x, *parameters, normal(6), np.abs(normal(6))]
        case(f"BatchNormalization_{opset}", "BatchNormalization", inputs, ["y"], opset=opset)
    case("InstanceNormalization", "InstanceNormalization", [x, *parameters], ["y"], opset=9)
    case("LRN", "LRN", [x], ["y"], opset=13, size=3, alpha=0.2, beta=0.6, bias=1.5)
    for axis, shape in ((-1, [5]), (2, [4, 5]), (1, [6, 4, 5])):
        inputs = [x, normal(*shape), normal(*shape)]
        case(f"LayerNormalization_{axis}", "LayerNormalization", inputs, ["y"], axis=axis)


def elementwise():
    x = normal(3, 4)
    case("Clip_6", "Clip", [x], ["y"], opset=6, min=-0.5, max=0.5)
    case("Dropout_7", "Dropout", [x], ["y"], opset=7)
    case("Pow_int", "Pow", [x, np.array([2], np.int64)], ["y"], opset=13)
    case("Where_9", "Where", [x > 0, x, normal(4)], ["y"], opset=9)
    case("TopK_1", "TopK", [x], ["v", "i"], opset=1, k=2, axis=0)
    case("Shrink_int", "Shrink", [rng.integers(-9, 9, (9,))], ["y"], opset=9, lambd=2.0, bias=1.0)
    weights, offset = normal(4, 3, 3, 3), normal(2, 36, 5, 5) * 0.5
    image, mask = normal(2, 6, 5, 5), np.abs(normal(2, 18, 5, 5))
    attributes = {"group": 2, "offset_group": 2, "pads": [1, 1, 1, 1]}
    inputs = [image, weights, offset, normal(4), mask]
    case("DeformConv_groups", "DeformConv", inputs, ["y"], opset=19, **attributes)


def windows():
    x = normal(2, 3, 3, 2)
    shapes = [([7, 7], [7, 7], [0, 0, 0, 0]), ([4, 4], [3, 3], [1, 1, 0, 0])]
    for i, (kernel, strides, pads) in enumerate(shapes):
        window = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": 1}
        case(f"MaxPool_over_{i}", "MaxPool", [x], ["y"], opset=12, **window)
        for counted in (0, 1):
            attributes = {"opset": 19, "count_include_pad": counted, **window}
            case(f"AveragePool_over_{i}_{counted}", "AveragePool", [x], ["y"], **attributes)
    lengths = [np.array(3), None, np.array(8)]
    case("STFT_rank_2", "STFT", [normal(2, 20), *lengths], ["y"], opset=17)


def products():
    image, positions = normal(2, 5, 7, 9), normal(5, 11, 9)
    case("Einsum_positions", "Einsum", [image, positions], ["y"], equation="bhwc,hkc->bhwk")
    heads = [normal(2, 9, 3, 8), normal(2, 7, 3, 8)]
    case("Einsum_scores", "Einsum", heads, ["y"], equation="bqhd,bkhd->bhqk")
    case("Einsum_left_last", "Einsum", heads, ["y"], equation="bqhd,bkhd->bhkq")
    case("Einsum_chain", "Einsum", [normal(5, 9), *heads[:1]], ["y"], equation="ij,ajkl->kail")
    case("Einsum_ellipsis", "Einsum", [image, normal(9, 8)], ["y"], equation="...c,cd->...d")


microsoft()
on_codes()
attention()
fused()
recurrent()
reductions()
normalizations()
elementwise()
windows()
products()
