//! Telling the demonstration: steps with checks that hold or do not, for people as they
//! happen, for machines at the end.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::Result;
use crate::output::Out;
use crate::paint::{BOLD, GREEN, RED};

/// One step. Field names are stable.
#[derive(Serialize)]
pub(super) struct Step {
    name: &'static str,
    held: bool,
    seconds: f64,
    checks: Vec<Check>,
    numbers: Map<String, Value>,
}

/// One thing that was to hold. Field names are stable.
#[derive(Serialize)]
struct Check {
    what: String,
    held: bool,
}

pub(super) struct Story<'a> {
    out: &'a mut Out,
    steps: Vec<Step>,
    step_begun: Instant,
    begun: Instant,
}

impl<'a> Story<'a> {
    pub(super) fn new(out: &'a mut Out) -> Self {
        let now = Instant::now();
        Self { out, steps: Vec::new(), step_begun: now, begun: now }
    }

    /// Begins a step; it holds until a check does not.
    pub(super) fn step(&mut self, name: &'static str, title: &str) -> Result<()> {
        self.end_step();
        self.step_begun = Instant::now();
        self.steps.push(Step {
            name,
            held: true,
            seconds: 0.0,
            checks: Vec::new(),
            numbers: Map::new(),
        });
        let number = self.steps.len();
        self.show(&format!("\n{}", BOLD.paint(&format!("{number}. {title}"))))
    }

    /// Records whether `what` holds.
    pub(super) fn check(&mut self, held: bool, what: impl Into<String>) -> Result<()> {
        let what = what.into();
        let mark = if held { GREEN.paint("✓") } else { RED.paint("✗") };
        self.show(&format!("   {mark} {what}"))?;
        if let Some(step) = self.steps.last_mut() {
            step.held &= held;
            step.checks.push(Check { what, held });
        }
        Ok(())
    }

    /// Records a number for machines.
    pub(super) fn number(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(step) = self.steps.last_mut() {
            step.numbers.insert(name.into(), value.into());
        }
    }

    /// Shows something to people.
    pub(super) fn show(&mut self, text: &str) -> Result<()> {
        if self.is_json() { Ok(()) } else { self.out.line(text) }
    }

    pub(super) fn is_json(&self) -> bool {
        self.out.is_json()
    }

    /// The step that is going on did not come to its end.
    pub(super) fn broken(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.held = false;
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        rounded(self.begun)
    }

    pub(super) fn step_seconds(&self) -> f64 {
        rounded(self.step_begun)
    }

    pub(super) fn into_steps(mut self) -> (&'a mut Out, Vec<Step>) {
        self.end_step();
        (self.out, self.steps)
    }

    fn end_step(&mut self) {
        let seconds = self.step_seconds();
        if let Some(step) = self.steps.last_mut() {
            step.seconds = seconds;
        }
    }
}

impl Step {
    pub(super) fn held(&self) -> bool {
        self.held
    }
}

fn rounded(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_does_not_hold_fails_its_step_alone() {
        let mut out = Out::new(true);
        let mut story = Story::new(&mut out);
        for (name, held) in [("good", [true, true]), ("bad", [false, true])] {
            // OK because nothing is printed for machines before the end.
            story.step(name, "").unwrap_or_default();
            for held in held {
                story.check(held, "a check").unwrap_or_default();
            }
        }
        let (_, steps) = story.into_steps();
        assert_eq!(steps.iter().map(Step::held).collect::<Vec<_>>(), [true, false]);
    }
}
