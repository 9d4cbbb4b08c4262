//! Text in colours, and text that cannot steer a terminal.

use anstyle::Style;

/// Wraps text in a style's escape codes.
#[derive(Clone, Copy)]
pub(crate) struct Paint(Style);

impl Paint {
    pub(crate) fn paint(self, text: &str) -> String {
        format!("{}{text}{}", self.0.render(), self.0.render_reset())
    }
}

pub(crate) const BOLD: Paint = Paint(Style::new().bold());
pub(crate) const DIM: Paint = Paint(Style::new().dimmed());
pub(crate) const GREEN: Paint = colour(anstyle::AnsiColor::Green);
pub(crate) const CYAN: Paint = colour(anstyle::AnsiColor::Cyan);
pub(crate) const RED: Paint =
    Paint(Style::new().bold().fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Red))));
pub(crate) const YELLOW: Paint = colour(anstyle::AnsiColor::Yellow);

const fn colour(colour: anstyle::AnsiColor) -> Paint {
    Paint(Style::new().fg_color(Some(anstyle::Color::Ansi(colour))))
}

/// Text from outside, such as a file name, without what could steer a terminal.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}
