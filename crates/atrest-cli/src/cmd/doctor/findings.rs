//! What a doctor writes down.

use super::{Finding, Level};

/// What was found so far.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn good(&mut self, check: &'static str, what: impl Into<String>) {
        self.0.push(Finding { level: Level::Good, check, what: what.into(), advice: None });
    }

    pub(super) fn note(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        advice: &'static str,
    ) {
        let advice = Some(advice);
        self.0.push(Finding { level: Level::Note, check, what: what.into(), advice });
    }

    pub(super) fn problem(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        advice: &'static str,
    ) {
        let advice = Some(advice);
        self.0.push(Finding { level: Level::Problem, check, what: what.into(), advice });
    }
}
