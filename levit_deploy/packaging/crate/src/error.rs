//! Why a call gave nothing.

use core::fmt;

use crate::library;

/// Why a call gave nothing; `Display` is a sentence, the library's own where it is the library that
/// refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// This CPU, or its operating system, lacks an instruction that the library uses.
    Cpu,
    /// The self test: computed, but not what the build machine computed.
    SelfTest,
    /// The self test: weights or code are not what was built.
    Damaged,
    /// A side of the frame is 0, above [`Frame::SIDE_MAX`](crate::Frame::SIDE_MAX), odd where two
    /// pixels share chroma, or not the model's where frames must have its size.
    FrameSize,
    /// A stride is shorter than a row.
    FrameStride,
    /// No answers were asked for.
    Count,
    /// Any other code of the C header.
    Other(i32),
    /// The frame's format has another number of planes.
    Planes {
        /// How many it has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A plane's slice ends before its last row does.
    PlaneTooShort {
        /// Which one, from 0 on.
        plane: usize,
        /// Bytes that its rows take.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// There are not as many values as it takes.
    Length {
        /// How many it takes.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// Threads cannot be created: there may be 1 to 16.
    Threads,
}

/// The codes of the C header that have a name here.
const NAMED: [(i32, Error); 6] = [
    (2, Error::Cpu),
    (3, Error::SelfTest),
    (7, Error::Damaged),
    (18, Error::FrameSize),
    (19, Error::FrameStride),
    (20, Error::Count),
];

impl Error {
    /// What a function of the C header returned.
    pub(crate) fn check(code: i32) -> Result<(), Error> {
        match NAMED.iter().find(|(number, _)| *number == code) {
            Some((_, error)) => Err(*error),
            None if code != 0 => Err(Error::Other(code)),
            None => Ok(()),
        }
    }

    fn code(self) -> Option<i32> {
        match self {
            Error::Other(code) => Some(code),
            _ => NAMED.iter().find(|(_, error)| *error == self).map(|(code, _)| *code),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Planes { expected, found } => {
                write!(f, "a frame of this format has {expected} planes, not {found}")
            }
            Error::PlaneTooShort { plane, expected, found } => {
                write!(f, "plane {plane} of the frame has {found} bytes, its rows take {expected}")
            }
            Error::Length { expected, found } => {
                write!(f, "there are {found} values, it takes {expected}")
            }
            Error::Threads => f.write_str("cannot create threads: there may be 1 to 16"),
            error => f.write_str(library::sentence(error.code().unwrap_or(-1))),
        }
    }
}

#[cfg(feature = "std")]
impl std::error::Error for Error {}
