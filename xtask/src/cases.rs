//! What a client's `run` prints: a line for each case, then how many there were.

use std::io::Write;

use crate::tally::Tally;

/// Where the list of passed cases continues on the next line.
const WIDTH: usize = 110;

/// A line of a client's report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Passed(&'a str),
    /// The case and why it failed.
    Failed(&'a str),
    /// The case and why it cannot be tried.
    NotApplicable(&'a str),
    Summary {
        passed: usize,
        failed: usize,
    },
    Other(&'a str),
}

impl<'a> Line<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let text = text.trim_end();
        if let Some(case) = text.strip_prefix("ok ") {
            return Line::Passed(case);
        }
        if let Some(case) = text.strip_prefix("FAIL ") {
            return Line::Failed(case);
        }
        if let Some(case) = text.strip_prefix("n/a ") {
            return Line::NotApplicable(case);
        }
        Self::parse_summary(text).unwrap_or(Line::Other(text))
    }

    fn parse_summary(text: &str) -> Option<Self> {
        let (passed, failed) = text.strip_suffix(" failed")?.split_once(" passed, ")?;
        Some(Line::Summary { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
    }
}

/// Prints cases as they end and counts them: those that passed side by side, others on lines of their own.
#[derive(Debug, Default)]
pub(crate) struct Printer {
    tally: Tally,
    column: usize,
    /// The failed cases and why.
    failures: Vec<String>,
}

impl Printer {
    pub(crate) fn print(&mut self, line: &Line<'_>) {
        match line {
            Line::Passed(case) => {
                self.tally.passed += 1;
                self.print_passed(case);
            }
            Line::Failed(case) => {
                self.tally.failed += 1;
                self.failures.push((*case).to_owned());
                self.print_alone("FAIL ", case);
            }
            Line::NotApplicable(case) => {
                self.tally.not_applicable += 1;
                self.print_alone("n/a ", case);
            }
            Line::Summary { .. } | Line::Other("") => {}
            Line::Other(text) => self.print_alone("| ", text),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Counts what another one has printed.
    pub(crate) fn add(&mut self, other: Self) {
        self.end_line();
        let (tally, failures) = other.finish();
        self.tally += tally;
        self.failures.extend(failures);
    }

    /// Ends the line that is being printed; tells what there was, and the cases that failed.
    pub(crate) fn finish(mut self) -> (Tally, Vec<String>) {
        self.end_line();
        (self.tally, self.failures)
    }

    /// Ends the line that is being printed.
    pub(crate) fn end_line(&mut self) {
        if self.column > 0 {
            println!();
        }
        self.column = 0;
    }

    fn print_passed(&mut self, case: &str) {
        let length = case.chars().count() + 1;
        if self.column > 0 && self.column + length > WIDTH {
            self.end_line();
        }
        if self.column == 0 {
            print!("  ok");
            self.column = 4;
        }
        print!(" {case}");
        self.column += length;
        // A line that is not complete would wait in the buffer. That it cannot be shown does no harm.
        let _ = std::io::stdout().flush();
    }

    fn print_alone(&mut self, mark: &str, text: &str) {
        self.end_line();
        println!("  {mark}{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(Line::parse("ok get"), Line::Passed("get"));
        assert_eq!(Line::parse("FAIL get: 1 != 2\r"), Line::Failed("get: 1 != 2"));
        assert_eq!(Line::parse("n/a get: no means"), Line::NotApplicable("get: no means"));
        assert_eq!(Line::parse("13 passed, 2 failed"), Line::Summary { passed: 13, failed: 2 });
        assert_eq!(Line::parse("x passed, 2 failed"), Line::Other("x passed, 2 failed"));
        assert_eq!(Line::parse("okay"), Line::Other("okay"));
    }

    #[test]
    fn cases_are_counted() {
        let mut printer = Printer::default();
        for line in ["ok a", "FAIL b: why", "n/a c: why", "ok d", "noise", "2 passed, 1 failed"] {
            printer.print(&Line::parse(line));
        }
        let (tally, failures) = printer.finish();
        assert_eq!(tally, Tally { passed: 2, failed: 1, not_applicable: 1, skipped: 0 });
        assert_eq!(failures, ["b: why"]);
    }
}
