//! `fewbit chat` in a real terminal: it streams, Ctrl-C ends an answer and then the conversation,
//! and the terminal is left as it was found.

mod process;

use process::zoo;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A model that can talk: that of the zoo, with a template.
fn talker(dir: &Path) -> Option<String> {
    let model = zoo("stories260k")?;
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(model.join(name), dir.join(name)).unwrap();
    }
    let text = fs::read_to_string(model.join("tokenizer_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["chat_template"] = "{% for m in messages %}{{ m.content }}\n{% endfor %}".into();
    fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
    Some(dir.display().to_string())
}

/// A program in a terminal of its own.
struct Terminal {
    master: File,
    slave: File,
    before: Termios,
    child: Child,
    screen: Receiver<Vec<u8>>,
}

impl Terminal {
    fn run(line: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = Path::new(OsStr::from_bytes(name.as_bytes()));
        let flags = OFlags::NOCTTY.bits() as i32;
        let open =
            || File::options().read(true).write(true).custom_flags(flags).open(path).unwrap();
        let slave = open();
        let mut before = tcgetattr(&slave).unwrap();
        // Settings that no program would choose by itself.
        before.special_codes[rustix::termios::SpecialCodeIndex::VERASE] = 8;
        tcsetattr(&slave, OptionalActions::Now, &before).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let child = Command::new("setsid")
            .args(["--wait", "--ctty", env!("CARGO_BIN_EXE_fewbit")])
            .args(line)
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let (sender, screen) = channel();
        let mut from = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { master, slave, before, child, screen }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// What appears until `text` has; how often something came.
    fn shows(&mut self, text: &str) -> (String, usize) {
        let (mut seen, mut times) = (Vec::new(), 0);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = String::from_utf8_lossy(&seen).into_owned();
            if shown.contains(text) {
                return (shown, times);
            }
            let left = end.saturating_duration_since(Instant::now());
            let part = self.screen.recv_timeout(left);
            let part = part.unwrap_or_else(|_| panic!("`{text}` is not in: {shown}"));
            seen.extend(part);
            times += 1;
        }
    }

    /// The exit code, once the program has ended and left the terminal as it was.
    fn ends(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        code
    }
}

#[test]
fn a_conversation_streams_stops_and_leaves_the_terminal_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(model) = talker(dir.path()) else { return };
    if Command::new("setsid").arg("--version").output().is_err() {
        eprintln!("skipped: there is no setsid");
        return;
    }
    let line = ["chat", &model, "--temperature", "0", "-n", "400", "--threads", "1"];
    let prompt = "> ";

    let mut terminal = Terminal::run(&line);
    assert!(terminal.shows(prompt).0.contains("Ctrl-C"));
    terminal.types("Once upon a time\n");
    terminal.shows("time\r\n");
    let (answer, times) = terminal.shows(prompt);
    assert!(times > 10, "an answer comes in pieces: {times}");
    assert!(answer.len() > 400, "{answer}");
    terminal.types("/exit\n");
    assert_eq!(terminal.ends(), Some(0));

    let mut terminal = Terminal::run(&line);
    terminal.shows(prompt);
    terminal.types("Once upon a time\n");
    terminal.shows("time\r\n");
    terminal.shows(" ");
    terminal.types("\u{3}");
    let (cut, _) = terminal.shows(prompt);
    assert!(cut.len() < answer.len(), "{cut}");
    // The conversation goes on, and ends at the second Ctrl-C, or at Ctrl-D.
    terminal.types("The\n");
    terminal.shows("The\r\n");
    terminal.shows(prompt);
    terminal.types("\u{4}");
    assert_eq!(terminal.ends(), Some(0));

    let mut terminal = Terminal::run(&line);
    terminal.shows(prompt);
    terminal.types("\u{3}");
    terminal.shows("interrupted");
    assert_eq!(terminal.ends(), Some(130));
}
