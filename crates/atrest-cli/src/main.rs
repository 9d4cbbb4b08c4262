//! The command `atrest`.

fn main() {}
