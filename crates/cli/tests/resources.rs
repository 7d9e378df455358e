//! What the system refuses: space, memory, files, writes. Each time with the documented exit
//! code, a message that names the place, and nothing left behind.

mod process;

use process::{Ran, calibrated, digits, fewbit, names, quantize};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// The binary behind another program that changes what it may do; `None` where there is no such
/// program, or it may not.
fn behind(program: &str, flags: &[&str]) -> Option<Command> {
    let tried = Command::new(program).args(flags).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `{program} {}` does not work here", flags.join(" "));
        return None;
    }
    let mut command = Command::new(program);
    command.args(flags).arg(env!("CARGO_BIN_EXE_fewbit")).env_remove("FEWBIT_ISA");
    Some(command)
}

/// The arguments of a quantization into `out`.
fn job(out: &Path) -> Vec<String> {
    let [flag, data] = calibrated();
    ["quantize".into(), digits("digits.onnx"), "-o".into(), text(out), flag, data].into()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn ran<S: AsRef<OsStr>>(command: &mut Command, args: impl IntoIterator<Item = S>) -> Ran {
    Ran::of(command.args(args).output().unwrap())
}

#[test]
fn a_write_that_fails_half_way_leaves_nothing() {
    let dir = tempdir().unwrap();
    let whole = dir.path().join("whole.onnx");
    quantize(&whole, &[]).succeeds();
    let size = fs::metadata(&whole).unwrap().len();
    let golden = fs::read(&whole).unwrap();
    for limit in [0, 1, 4096, size / 2, size - 1, size] {
        let folder = dir.path().join(limit.to_string());
        let out = folder.join("out.onnx");
        let limit_flag = format!("--fsize={limit}");
        let Some(mut command) = behind("prlimit", &[&limit_flag]) else { return };
        let ran = ran(&mut command, job(&out));
        if limit == size {
            ran.succeeds();
            assert_eq!(fs::read(&out).unwrap(), golden);
        } else {
            ran.fails(5, &["out.onnx", "too large"]);
            assert!(names(&folder).is_empty(), "{limit}: {:?}", names(&folder));
        }
    }
}

/// Model and report are two outputs: the one that was finished stays.
#[test]
fn a_report_that_cannot_be_written_costs_no_model() {
    let dir = tempdir().unwrap();
    let (out, report) = (dir.path().join("out.onnx"), dir.path().join("report"));
    fs::write(&report, b"no folder").unwrap();
    quantize(&out, &["--report", &text(&report)]).fails(5, &["report/report.html"]);
    assert!(fs::metadata(&out).unwrap().len() > 10_000);
    assert_eq!(names(dir.path()), ["out.onnx", "report"]);
}

/// Runs a script in which `fewbit` is the binary and `$D` the folder, among mounts of its own.
fn among_own_mounts(dir: &Path, script: &str) -> Option<Ran> {
    // As root there is no need for a user namespace, and it may be forbidden.
    let tried = ["-m", "-rm"].into_iter().find(|flag| {
        let mount = format!("mount -t tmpfs none {}", text(dir));
        let mut command = Command::new("unshare");
        command.args([flag, "sh", "-c", &mount]).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    });
    let Some(flag) = tried else {
        eprintln!("skipped: no mounts can be made here");
        return None;
    };
    let script = format!("fewbit() {{ {} \"$@\"; }}\n{script}", env!("CARGO_BIN_EXE_fewbit"));
    let mut command = Command::new("unshare");
    command.args([flag, "sh", "-c", &script]).env("D", dir).env_remove("FEWBIT_ISA");
    Some(Ran::of(command.output().unwrap()))
}

fn quoted(args: &[String]) -> String {
    args.iter().map(|a| format!("'{a}' ")).collect()
}

#[test]
fn a_full_disk_is_told_with_what_is_needed() {
    let dir = tempdir().unwrap();
    let line = quoted(&job(&dir.path().join("out.onnx")));
    for size in ["8k", "16k"] {
        let script = format!(
            "mount -t tmpfs -o size={size} none $D; fewbit {line}; code=$?; ls -A $D; exit $code"
        );
        let Some(ran) = among_own_mounts(dir.path(), &script) else { return };
        ran.fails(5, &["out.onnx", "disk space", "are free"]);
        assert_eq!(ran.stdout, "", "something was left");
    }
}

#[test]
fn a_read_only_disk_can_be_read_and_not_written() {
    let dir = tempdir().unwrap();
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::copy(digits("digits.onnx"), locked.join("model.onnx")).unwrap();
    let mount = "mount --bind $D/locked $D/locked && mount -o remount,bind,ro $D/locked";
    let mut line = job(&locked.join("out.onnx"));
    let script = format!("{mount}; fewbit {}", quoted(&line));
    let Some(ran) = among_own_mounts(dir.path(), &script) else { return };
    ran.fails(5, &["locked/out.onnx", "Read-only"]);
    assert_eq!(names(&locked), ["model.onnx"]);
    line[1] = text(&locked.join("model.onnx"));
    line[3] = text(&dir.path().join("out.onnx"));
    let script = format!("{mount}; fewbit {}", quoted(&line));
    among_own_mounts(dir.path(), &script).unwrap().succeeds();
    assert_eq!(names(dir.path()), ["locked", "out.onnx"]);
}

/// From where not even the program fits up to where the job does.
#[test]
fn little_address_space_ends_with_an_exit_code() {
    let dir = tempdir().unwrap();
    let (mut refused, mut done) = (0, 0);
    for mib in (8..=40).step_by(4).chain((48..=512).step_by(32)) {
        let flag = format!("--as={}", mib << 20);
        // Less than the loader needs is not ours to answer.
        let Some(mut version) = behind_quietly("prlimit", &flag) else { continue };
        if !version.arg("--version").output().unwrap().status.success() {
            continue;
        }
        let out = dir.path().join(format!("{mib}/out.onnx"));
        let mut command = behind_quietly("prlimit", &flag).unwrap();
        let ran = ran(&mut command, job(&out));
        let left = out.parent().filter(|p| p.exists()).map(names).unwrap_or_default();
        match ran.code {
            Some(0) => {
                done += 1;
                assert_eq!(left, ["out.onnx"]);
            }
            Some(5) => {
                refused += 1;
                assert!(!ran.stderr.is_empty(), "{mib} MiB");
                assert!(left.is_empty(), "{mib} MiB: {left:?}");
            }
            code => panic!("{mib} MiB: {code:?} {}", ran.stderr),
        }
    }
    assert!(done > 0 || refused == 0, "{refused} refused, none done");
}

fn behind_quietly(program: &str, flag: &str) -> Option<Command> {
    Command::new(program).arg("--version").output().ok()?;
    let mut command = Command::new(program);
    command.arg(flag).arg(env!("CARGO_BIN_EXE_fewbit")).env_remove("FEWBIT_ISA");
    Some(command)
}

#[test]
fn few_open_files_are_enough_or_an_error() {
    let dir = tempdir().unwrap();
    for count in [16, 12, 8, 6, 5, 4] {
        let out = dir.path().join(format!("{count}/out.onnx"));
        let Some(mut command) = behind_quietly("prlimit", &format!("--nofile={count}")) else {
            return;
        };
        let ran = ran(&mut command, job(&out));
        match ran.code {
            Some(0) => assert_eq!(names(out.parent().unwrap()), ["out.onnx"]),
            Some(5) if count < 16 => assert!(!out.exists(), "{}", ran.stderr),
            // The loader needs some, too.
            Some(127) if count < 5 => {}
            code => panic!("{count}: {code:?} {}", ran.stderr),
        }
    }
}

#[test]
fn threads_that_cannot_be_started_are_done_without() {
    let dir = tempdir().unwrap();
    let mut files = Vec::new();
    for threads in ["0", "1", "1024"] {
        let out = dir.path().join(threads);
        quantize(&out, &["--threads", threads]).succeeds();
        files.push(fs::read(out).unwrap());
    }
    assert!(files.iter().all(|f| *f == files[0]));
    // Stacks of 1024 threads take 2 GiB of addresses.
    let Some(mut command) = behind("prlimit", &["--as=800000000"]) else { return };
    let out = dir.path().join("few");
    let mut line = job(&out);
    line.extend(["--threads".to_string(), "1024".to_string()]);
    let ran = ran(&mut command, line);
    match ran.code {
        Some(0) => assert_eq!(fs::read(out).unwrap(), files[0]),
        code => assert_eq!(code, Some(5), "{}", ran.stderr),
    }
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let dir = tempdir().unwrap();
    let locked = dir.path().join("locked.onnx");
    fs::copy(digits("digits.onnx"), &locked).unwrap();
    let status = Command::new("chmod").args(["000", &text(&locked)]).status().unwrap();
    assert!(status.success());
    // Without a mapping, root is nobody in particular.
    let Some(mut command) = behind("unshare", &["-U"]) else { return };
    ran(&mut command, ["inspect", &text(&locked)]).fails(3, &["locked.onnx", "permission"]);
}

/// Runs, and fails the test instead of waiting for ever.
fn in_time(args: &[&str]) -> Ran {
    let begun = Instant::now();
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_fewbit")]).env_remove("FEWBIT_ISA");
    let ran = ran(&mut command, args);
    assert!(begun.elapsed() < Duration::from_secs(20), "{args:?} waits");
    ran
}

/// Makes something of that name that is no file.
type Make<'a> = &'a dyn Fn(&Path);

#[test]
fn what_is_no_file_is_refused_wherever_a_file_is_read() {
    let dir = tempdir().unwrap();
    let made = |name: &str, make: &dyn Fn(&Path)| {
        let path = dir.path().join(name);
        make(&path);
        text(&path)
    };
    let pipe = |p: &Path| assert!(Command::new("mkfifo").arg(p).status().unwrap().success());
    let folder = |p: &Path| fs::create_dir(p).unwrap();
    let socket = |p: &Path| drop(UnixListener::bind(p).unwrap());
    let device = |p: &Path| std::os::unix::fs::symlink("/dev/zero", p).unwrap();
    let kinds: [(&str, Make); 4] =
        [("pipe", &pipe), ("folder", &folder), ("socket", &socket), ("device", &device)];
    let (model, out) = (digits("digits.onnx"), text(&dir.path().join("out.onnx")));
    for (kind, make) in kinds {
        let file = |extension: &str| made(&format!("{kind}.{extension}"), make);
        let onnx = file("onnx");
        in_time(&["inspect", &onnx]).fails(3, &[&onnx]);
        for extension in ["npz", "npy", "csv", "txt", "toml"] {
            let data = file(extension);
            // A folder is a data set; this one is empty.
            in_time(&["eval", &model, "--data", &data]).fails(3, &[&data]);
            if extension == "toml" {
                let line = ["quantize", &model, "-o", &out, "--calibrate", &data];
                in_time(&line).fails(3, &[&data]);
                in_time(&["quantize", &model, "-o", &out, "--recipe", &data]).fails(3, &[&data]);
                in_time(&["plan", &model, "--target", &data]).fails(3, &[&data]);
                let line = ["quantize", &model, "-o", &out, "--plan", &data];
                let data_line = calibrated();
                in_time(&[&line[..], &[&data_line[0], &data_line[1]]].concat()).fails(3, &[&data]);
            }
            if extension.starts_with('n') {
                in_time(&["run", &model, "--input", &data]).fails(3, &[&data]);
            }
        }
        let image = file("png");
        in_time(&["run", &model, "--input", &image]).fails(3, &[&image]);
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn an_output_that_is_no_file_is_never_replaced() {
    let dir = tempdir().unwrap();
    let pipe = dir.path().join("pipe.onnx");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/full", dir.path().join("device.onnx")).unwrap();
    for name in ["pipe.onnx", "device.onnx"] {
        let path = dir.path().join(name);
        quantize(&path, &["--force"]).fails(2, &[name, "no regular file"]);
    }
    assert_eq!(names(dir.path()), ["device.onnx", "pipe.onnx"]);
}

#[test]
fn gigabytes_of_zeros_are_refused_at_once() {
    let dir = tempdir().unwrap();
    let model = digits("digits.onnx");
    for extension in ["onnx", "npz", "npy", "csv", "txt", "toml", "png"] {
        let path = dir.path().join(format!("zeros.{extension}"));
        fs::File::create(&path).unwrap().set_len(5 << 30).unwrap();
        let file = text(&path);
        let line = match extension {
            "onnx" => vec!["inspect", &file],
            "png" => vec!["run", &model, "--input", &file],
            _ => vec!["eval", &model, "--data", &file],
        };
        // Private memory, not the mapped file.
        let Some(mut command) = behind("prlimit", &["--data=600000000"]) else { return };
        let begun = Instant::now();
        let ran = ran(&mut command, line);
        assert!(matches!(ran.code, Some(3 | 4)), "{extension}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains("zeros."), "{}", ran.stderr);
        assert!(begun.elapsed() < Duration::from_secs(10), "{extension}: {:?}", begun.elapsed());
    }
}

#[test]
fn of_two_runs_on_one_output_one_wins() {
    let dir = tempdir().unwrap();
    let golden = dir.path().join("golden.onnx");
    quantize(&golden, &[]).succeeds();
    let golden = fs::read(golden).unwrap();
    for force in [false, true] {
        let folder = dir.path().join(force.to_string());
        let out = folder.join("out.onnx");
        let start = |_| {
            let mut command = fewbit();
            command.args(job(&out)).args(force.then_some("--force"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..4).map(start).collect();
        let ended = children.into_iter().map(|c| Ran::of(c.wait_with_output().unwrap()));
        let mut won = 0;
        for ran in ended {
            match ran.code {
                Some(0) => won += 1,
                _ => ran.fails(2, &["exists"]),
            }
        }
        assert_eq!(won, if force { 4 } else { 1 });
        assert_eq!(fs::read(&out).unwrap(), golden);
        assert_eq!(names(&folder), ["out.onnx"]);
    }
}

/// Runs with redirections, as a shell writes them.
fn redirected(args: &[String], redirections: &str) -> Ran {
    let line = format!("exec {} {} {redirections}", env!("CARGO_BIN_EXE_fewbit"), quoted(args));
    Ran::of(Command::new("sh").args(["-c", &line]).output().unwrap())
}

#[test]
fn messages_that_nobody_can_read_change_nothing() {
    let dir = tempdir().unwrap();
    for (number, redirections) in ["2>&-", "2>/dev/full", ">&-", ">&- 2>&- <&-"].iter().enumerate()
    {
        let out = dir.path().join(format!("{number}.onnx"));
        let ran = redirected(&job(&out), redirections);
        assert_eq!(ran.code, Some(0), "{redirections}: {}", ran.stderr);
        assert!(fs::metadata(&out).unwrap().len() > 10_000);
        let ran = redirected(&job(&out), redirections);
        assert_eq!(ran.code, Some(2), "{redirections}: {}", ran.stderr);
    }
}

#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let args = ["inspect".to_string(), digits("digits.onnx")];
    redirected(&args, ">/dev/full").fails(5, &["stdout", "No space left"]);
    let args = [args.as_slice(), &["--json".to_string()]].concat();
    redirected(&args, ">/dev/full").fails(5, &["stdout"]);
}

/// The model is written before anything is printed, so a reader that leaves early costs nothing.
#[test]
fn a_reader_that_leaves_costs_no_output() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out.onnx");
    let mut command = fewbit();
    command.args(job(&out)).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(names(dir.path()), ["out.onnx"]);
}

/// A terminal of 20 columns, dumb or not, without a home.
#[test]
fn any_terminal_will_do() {
    let dir = tempdir().unwrap();
    for (number, term) in ["dumb", "xterm", ""].iter().enumerate() {
        let out = dir.path().join(format!("{number}.onnx"));
        let line =
            format!("stty cols 20 rows 5; {} {}", env!("CARGO_BIN_EXE_fewbit"), quoted(&job(&out)));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_remove("HOME").env("TERM", term);
        command.env("LANG", "C").env_remove("FEWBIT_ISA").stdin(Stdio::null());
        let Ok(output) = command.output() else {
            eprintln!("skipped: there is no `script`");
            return;
        };
        let shown = Ran::of(output);
        shown.succeeds();
        assert!(out.exists(), "{term}: {}", shown.stdout);
        assert!(*term != "dumb" || !shown.stdout.contains('\x1b'), "{}", shown.stdout);
    }
}
