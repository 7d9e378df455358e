//! The `fewbit` command.
fn main() {}
