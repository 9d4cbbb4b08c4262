//! An administrator in Python with the service's own client: JSON lines in and out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

/// A running script, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Admin(Mutex<Pipes>);

#[derive(Debug)]
struct Pipes {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Admin {
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let to = child.stdin.take().ok_or("no stdin")?;
        let from = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self(Mutex::new(Pipes { child, to, from })))
    }

    /// Makes a call; panics unless it succeeds.
    pub(crate) fn call(&self, request: &Value) -> Value {
        let mut answer = self.try_call(request);
        assert!(answer.get("error").is_none(), "{request}: {answer}");
        answer["ok"].take()
    }

    /// Makes a call; answers `{"ok": ...}` or `{"error": ...}`.
    pub(crate) fn try_call(&self, request: &Value) -> Value {
        let mut pipes = self.0.lock().unwrap();
        writeln!(pipes.to, "{request}").expect("the administrator runs");
        let mut line = String::new();
        pipes.from.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{request}: no JSON: {line:?}"))
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
