//! Command lines that contradict themselves: exit code 2, and a message with the way out.

mod process;

use process::{Ran, calibrated, digits, fewbit, quantize, run};
use tempfile::tempdir;

fn with_digits(flags: &[&str]) -> Ran {
    let dir = tempdir().unwrap();
    quantize(&dir.path().join("out.onnx"), flags)
}

#[test]
fn unknown_commands_and_flags_are_answered_with_the_nearest_one() {
    run(["quantise", "x.onnx"]).fails(2, &["quantize"]);
    with_digits(&["--evalute", "x"]).fails(2, &["--evaluate"]);
    run(["quantize", "x.onnx"]).fails(2, &["--output"]);
    run::<&str>([]).fails(2, &["Usage"]);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for (flag, value) in [
        ("--threads", "10000"),
        ("--threads", "-1"),
        ("--threads", "two"),
        ("--max-drop", "nan"),
        ("--max-drop", "-1%"),
        ("--max-drop", "1e9"),
        ("--max-memory", "1X"),
        ("--max-memory", "-3G"),
        ("--seed", "-1"),
        ("--keep-float", "Conv"),
        ("--calibration", "best"),
        ("--activations", "i4"),
    ] {
        with_digits(&[&format!("{flag}={value}")]).fails(2, &[flag]);
    }
    with_digits(&["--max-drop", "-1"]).fails(2, &["0 to 100 percentage points"]);
    with_digits(&["--threads", "-1"]).fails(2, &["expected a whole number"]);
    run(["bench", &digits("digits.onnx"), "--seconds", "-1"]).fails(2, &["0.001 to 3600 seconds"]);
    for (flag, wanted) in [
        ("--temperature", "invalid value '-1'"),
        ("--top-p", "expected 0 to 1"),
        ("--min-p", "expected 0 to 1"),
        ("--repeat-penalty", "invalid value '-1'"),
        ("-n", "invalid value '-1'"),
    ] {
        run(["generate", "m.gguf", "-p", "a", flag, "-1"]).fails(2, &[wanted]);
    }
    run(["bench", &digits("digits.onnx"), "--seconds", "inf"]).fails(2, &["--seconds"]);
    let twice = ["--shape", "image=1,1,8,8", "--shape", "image=2,1,8,8"];
    run(["bench", &*digits("digits.onnx")].into_iter().chain(twice)).fails(2, &["two shapes"]);
    run(["bench", &digits("digits.onnx"), "--shape", "image=1,-1"]).fails(2, &["--shape"]);
    run(["bench", &digits("digits.onnx"), "--shape", "image=1,3,8,8"])
        .fails(2, &["[1, 3, 8, 8]", "f32[N,1,8,8]"]);
}

#[test]
fn static_recipes_need_data_and_say_what_does_not() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out.onnx").display().to_string();
    let model = digits("digits.onnx");
    run(["quantize", &model, "-o", &out]).fails(2, &["--calibrate", "int8-dynamic"]);
    with_digits(&["--max-drop", "1%"]).fails(2, &["--evaluate"]);
    assert!(process::names(dir.path()).is_empty());
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    with_digits(&["--plan", "p.toml", "--recipe", "int8"]).fails(2, &["--plan", "--recipe"]);
    with_digits(&["-q", "-v"]).fails(2, &["--verbose"]);
    with_digits(&["--recipe", "int8-weights", "--calibration", "mse"]).fails(2, &["--calibration"]);
    with_digits(&["--recipe", "fp16", "--per-tensor"]).fails(2, &["--per-tensor"]);
}

#[test]
fn names_that_do_not_exist_are_answered() {
    with_digits(&["--recipe", "int9"]).fails(2, &["int9", "did you mean `int8`"]);
    with_digits(&["--target", "openvin"]).fails(2, &["did you mean `openvino`"]);
    with_digits(&["--keep-float", "op=Conv,name=nothing*,index=-1"])
        .fails(2, &["`op=Conv,name=nothing*,index=-1` matches no node", "fewbit plan"]);
    run(["inspect", "/does/not/exist.onnx"]).fails(3, &["/does/not/exist.onnx", "check the path"]);
}

#[test]
fn a_path_that_is_no_model_is_what_is_wrong() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("lfs.gguf"), "version https://git-lfs.github.com/spec/v1\noid x\n").unwrap();
    for (name, code) in [("missing.gguf", "FB-3001"), ("lfs.gguf", "FB-3004")] {
        let (model, out) = (at(name), at("out.gguf"));
        run(["quantize", &model, "-o", &out, "--type", "Q4_0"]).fails(3, &[code, name]);
        run(["convert", &model, &out]).fails(3, &[code, name]);
    }
    run(["quantize", &digits("digits.onnx"), "-o", &at("o"), "--type", "Q4_0"])
        .fails(2, &["--type", "--recipe"]);
    run(["convert", &digits("digits.onnx"), &at("o.gguf")])
        .fails(4, &["FB-4705", "fewbit quantize", "fp16"]);
    run(["quantize", &at("missing.onnx"), "-o", &at("o.onnx")])
        .fails(3, &["FB-3001", "missing.onnx", "check the path"]);
    std::fs::write(at("m.gguf"), b"GGUF\x03\0\0\0").unwrap();
    let folder = at("");
    for (model, code, exit, hint) in [
        (&at("m.gguf"), "FB-4001", 4, "fewbit convert MODEL x.onnx"),
        (&at("lfs.gguf"), "FB-3004", 3, "GGUF and safetensors"),
        (&folder, "FB-3002", 3, "a file in it"),
    ] {
        run(["bench", model]).fails(exit, &[code, hint]);
    }
}

#[test]
fn a_plan_for_a_target_of_ones_own_is_run_with_it() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (target, plan) = (at("mine.toml"), at("plan.toml"));
    let text = "name = \"mine\"\ndescription = \"Mine\"\nactivations = [\"i8\"]\n\
        asymmetric_activations = true\nper_channel_weights = true\nint32_bias = true\n\
        operators = [\"Conv\", \"Relu\"]\n";
    std::fs::write(&target, text).unwrap();
    let made = run(["plan", &digits("digits.onnx"), "-o", &plan, "--target", &target]);
    let told = format!("--plan {plan} --target {target}");
    assert!(made.succeeds().stdout.contains(&told), "{}", made.stdout);
    let out = dir.path().join("o.onnx");
    quantize(&out, &["--plan", &plan]).fails(2, &["`mine`", "openvino", "--target FILE"]);
    quantize(&out, &["--plan", &plan, "--target", "openvino"]).fails(2, &["`mine`", "`openvino`"]);
    let ran = quantize(&out, &["--plan", &plan, "--target", &target, "--json"]);
    assert_eq!(ran.succeeds().json()["target"], "mine");
}

#[test]
fn an_onnx_model_becomes_no_gguf_file() {
    let dir = tempdir().unwrap();
    quantize(&dir.path().join("o.gguf"), &[]).fails(2, &["o.gguf", "end the name in .onnx"]);
    assert!(process::names(dir.path()).is_empty());
}

#[test]
fn a_model_that_is_quantized_already_is_refused() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let small = at("int8.onnx");
    quantize(small.as_ref(), &[]).succeeds();
    let refusal = ["FB-4201", "int8.onnx", "start from the float model"];
    run(["plan", &small]).fails(4, &refusal);
    run(["quantize", &small, "-o", &at("o.onnx"), "--recipe", "int8-dynamic"]).fails(4, &refusal);
}

#[test]
fn language_models_refuse_what_has_no_effect_on_them() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let model = at("m.gguf");
    std::fs::write(&model, b"GGUF\x03\0\0\0").unwrap();
    let flags: &[&[&str]] = &[
        &["--recipe", "int8"],
        &["--target", "fewbit"],
        &["--per-tensor"],
        &["--symmetric"],
        &["--seed", "0"],
        &["--keep-float", "op=Conv"],
    ];
    let out = at("o.gguf");
    let line = ["quantize", &model, "-o", &out, "--type", "Q4_0"];
    for flags in flags {
        run(line.iter().chain(*flags)).fails(2, &[flags[0], "no effect"]);
    }
    for (ty, name, hint) in
        [("W4A16", "o.gguf", "folder"), ("W4A16", "o.onnx", "folder"), ("Q4_0", "o", ".gguf")]
    {
        let line = ["quantize", &model, "-o", &at(name), "--type", ty];
        run(line).fails(2, &["does not fit --type", hint]);
    }
}

#[test]
fn settings_files_are_checked() {
    let dir = tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let misspelt = write("misspelt.toml", "method = \"static\"\ncalibrtion = \"mse\"\n");
    with_digits(&["--recipe", &misspelt]).fails(2, &["misspelt.toml", "calibrtion"]);
    for scheme in ["i0:tensor:sym", "i1000000000:tensor:sym", "i4:block(1,0):sym", "i8:tensor"] {
        let path =
            write("scheme.toml", &format!("method = \"weight-only\"\nweights = \"{scheme}\"\n"));
        with_digits(&["--recipe", &path]).fails(2, &["scheme.toml"]);
    }
    let plan = write("plan.toml", "target = \"fewbit\"\n");
    with_digits(&["--plan", &plan]).fails(2, &["plan"]);
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    for command in [vec!["inspect".to_string(), digits("digits.onnx")], demo_line()] {
        let output = fewbit().args(&command).env("FEWBIT_ISA", "mmx").output().unwrap();
        Ran::of(output).fails(2, &["FEWBIT_ISA", "mmx", "scalar"]);
    }
}

fn demo_line() -> Vec<String> {
    let mut line = vec!["quantize".to_string(), digits("digits.onnx")];
    line.extend(["-o".to_string(), "/tmp/never-written.onnx".to_string()]);
    line.extend(calibrated());
    line
}

#[test]
fn memory_that_does_not_suffice_is_known_before_the_work() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out.onnx");
    quantize(&out, &["--max-memory", "1M"]).fails(5, &["--max-memory", "needs about"]);
    assert!(process::names(dir.path()).is_empty());
    quantize(&out, &["--max-memory", "1G"]).succeeds();
}

#[test]
fn failures_are_one_json_object_too() {
    let ran = run(["eval", &digits("digits.onnx"), "--data", "/does/not/exist.npz", "--json"]);
    let error = &ran.json()["error"];
    assert_eq!(ran.code.map(i64::from), error["exit"].as_i64());
    assert!(error["code"].as_str().unwrap().starts_with("FB-"));
    assert!(!error["message"].as_str().unwrap().is_empty());
}
