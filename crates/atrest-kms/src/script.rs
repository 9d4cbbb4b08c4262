//! A service that answers what a fuzz target says: in the place of the network, for the thread
//! that set it up.

use std::cell::RefCell;
use std::collections::VecDeque;

thread_local! {
    static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Vec<u8>>,
    asked: usize,
}

/// Answers with these, one after the other, until [`stop`].
pub(crate) fn start(answers: impl IntoIterator<Item = Vec<u8>>) {
    let script = Script { answers: answers.into_iter().collect(), asked: 0 };
    SCRIPT.with(|it| *it.borrow_mut() = Some(script));
}

/// Ends the script: how often it was asked.
pub(crate) fn stop() -> usize {
    SCRIPT.with(|it| it.borrow_mut().take()).map_or(0, |script| script.asked)
}

/// How often the script was asked by now.
pub(crate) fn asked() -> usize {
    SCRIPT.with(|it| it.borrow().as_ref().map_or(0, |script| script.asked))
}

/// `None` without a script; the next answer, or `Some(None)` after the last one.
pub(crate) fn next() -> Option<Option<Vec<u8>>> {
    SCRIPT.with(|it| {
        let mut script = it.borrow_mut();
        let script = script.as_mut()?;
        script.asked += 1;
        Some(script.answers.pop_front())
    })
}
