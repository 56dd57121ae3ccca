//! What can go wrong, named by what the caller can do.

use tortie_dataplane::Cause;

/// Why rules could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// iptables can't say this; the same input will fail again. Nothing was done.
    #[error("iptables has no way to say {what}")]
    Unsupported {
        /// What can't be said, with its chain.
        what: String,
    },
    /// A program is not there. Nothing was done.
    #[error("{program} can't be run: {reason}; install iptables and ipset")]
    NoProgram {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// A program refused its input; what it changed before was undone.
    #[error("{program} refused the change: {reason}")]
    Refused {
        /// The program.
        program: String,
        /// Its own words, with the line that it refused where it names one.
        reason: String,
        /// That line.
        line: Option<String>,
    },
    /// A program did not end in time and was ended. What it did is read back before the next change.
    #[error("{program} did not end within {seconds} s")]
    TooSlow {
        /// The program.
        program: String,
        /// The deadline.
        seconds: u64,
    },
    /// What a program printed can't be understood. Nothing was done.
    #[error("{program} printed what is not expected: {line:?}")]
    Odd {
        /// The program.
        program: String,
        /// The line.
        line: String,
    },
}

impl From<Error> for Cause {
    fn from(error: Error) -> Cause {
        let text = error.to_string();
        match error {
            Error::Unsupported { what: _ } => Cause::Unsupported(text),
            Error::NoProgram { program: _, reason: _ } => Cause::Missing(text),
            Error::Refused { program: _, reason: _, line: _ }
            | Error::TooSlow { program: _, seconds: _ }
            | Error::Odd { program: _, line: _ } => Cause::Failed(text),
        }
    }
}
