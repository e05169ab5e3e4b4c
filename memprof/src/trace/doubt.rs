//! An interpreter that has not shown yet that it is what its version's tables say: it is compared again, now and then, until
//! it has or until it is clear that it is not.
//!
//! Whoever attaches may meet an interpreter in its first milliseconds, while its state is being set up.

use std::time::{Duration, Instant};

use crate::python::interpreter::{Confirmation, Error};

/// How long a contradiction may last. An interpreter is set up within some milliseconds, on a machine that does much else
/// some hundred.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a program's interpreter.
#[derive(Debug, Default)]
pub enum Doubt {
    /// It was not compared.
    #[default]
    Unseen,
    /// It has not begun to run.
    NotInitialised,
    /// It was contradicted. Where it was seen not to run before, it is being set up: its stacks are read meanwhile, each
    /// against the thread that it is of.
    Contradicted { since: Instant, begins: bool },
    /// It is what the tables say.
    Settled,
    /// It is not, of which nobody has been `told` yet.
    Refused { error: Error, told: bool },
}

impl Doubt {
    /// Takes the result of a comparison.
    pub fn take(&mut self, result: Result<Confirmation, Error>) {
        self.take_at(result, Instant::now());
    }

    fn take_at(&mut self, result: Result<Confirmation, Error>, now: Instant) {
        *self = match (result, &self) {
            (Ok(Confirmation::NotInitialised), _) => Self::NotInitialised,
            (Ok(Confirmation::Idle | Confirmation::Confirmed), _) => Self::Settled,
            (Err(error), Self::Contradicted { since, .. }) if now - *since >= PATIENCE => {
                Self::Refused { error, told: false }
            }
            (Err(_), &&mut Self::Contradicted { since, begins }) => Self::Contradicted { since, begins },
            (Err(_), before) => {
                Self::Contradicted { since: now, begins: matches!(before, Self::NotInitialised) }
            }
        };
    }

    /// It is not there any more: it is compared again when the process maps other files.
    pub fn forget(&mut self) {
        *self = Self::Unseen;
    }

    /// Whether it is to be compared again.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::NotInitialised | Self::Contradicted { .. })
    }

    /// Whether it was contradicted, and not for so long that it is refused.
    pub fn is_contradicted(&self) -> bool {
        matches!(self, Self::Contradicted { .. })
    }

    /// Whether its stacks may be read.
    pub fn allows_stacks(&self) -> bool {
        matches!(self, Self::NotInitialised | Self::Contradicted { begins: true, .. } | Self::Settled)
    }

    /// Whether its stacks are not read, and will not be.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Why it is refused, the first time that this is asked.
    pub fn tell_refusal(&mut self) -> Option<Error> {
        match self {
            Self::Refused { error, told } => (!std::mem::replace(told, true)).then_some(*error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::version::Version;

    fn contradiction() -> Error {
        Error::Contradicted { version: Version::new(12, 1), what: "nothing" }
    }

    #[test]
    fn a_contradiction_that_passes_is_forgotten() {
        let begin = Instant::now();
        let mut doubt = Doubt::default();
        doubt.take_at(Err(contradiction()), begin);
        assert!(doubt.is_open() && !doubt.allows_stacks());
        doubt.take_at(Ok(Confirmation::Idle), begin + PATIENCE / 2);
        assert!(!doubt.is_open() && doubt.allows_stacks());
    }

    #[test]
    fn an_interpreter_that_begins_has_stacks_all_the_time() {
        let begin = Instant::now();
        let mut doubt = Doubt::default();
        for result in [Ok(Confirmation::NotInitialised), Err(contradiction()), Ok(Confirmation::Confirmed)] {
            doubt.take_at(result, begin);
            assert!(doubt.allows_stacks());
        }
        assert!(!doubt.is_open());
    }

    #[test]
    fn a_contradiction_that_lasts_is_final_and_told_once() {
        let begin = Instant::now();
        let mut doubt = Doubt::default();
        doubt.take_at(Err(contradiction()), begin);
        doubt.take_at(Err(contradiction()), begin + PATIENCE / 2);
        assert!(!doubt.is_refused());
        doubt.take_at(Err(contradiction()), begin + PATIENCE);
        assert!(doubt.is_refused() && !doubt.is_open() && !doubt.allows_stacks());
        assert_eq!(doubt.tell_refusal(), Some(contradiction()));
        assert_eq!(doubt.tell_refusal(), None);
    }
}
