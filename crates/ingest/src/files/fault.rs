//! Why a file cannot be read on.

use std::io;

pub(super) const ZSTD_WINDOW: &str = "its zstd window";

/// A fault of a file, or of the way to it. Holds no value and no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// The bytes did not come; whoever gives them knows why.
    #[error("its bytes did not come")]
    Input,
    #[error("{0}")]
    Damaged(&'static str),
    #[error("{0}")]
    Unsupported(&'static str),
    /// There is no room for a part of it; with so many bytes there may be (0: nobody knows).
    #[error("{what} is larger than there is room for")]
    TooLarge { what: &'static str, bytes: u64 },
}

impl FileFault {
    /// The file ends where it must not, or its bytes did not come.
    pub(super) fn read(error: &io::Error, cut: &'static str) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged(cut),
            io::ErrorKind::OutOfMemory => Self::TooLarge { what: ZSTD_WINDOW, bytes: 0 },
            // The last is what the library of zstd calls everything.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Self::Damaged("its compressed bytes cannot be unpacked")
            }
            _ => Self::Input,
        }
    }
}
