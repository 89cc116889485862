//! The memory that reading a file may hold, as its caller reserved it.

use super::FileFault;

/// What is left of it. The parts of a file that decide what is held are held against it before they are read: a window,
/// a header, a line, a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    bytes: u64,
    taken: u64,
}

impl Room {
    pub const fn new(bytes: u64) -> Self {
        Self { bytes, taken: 0 }
    }

    pub(super) fn left(self) -> u64 {
        self.bytes - self.taken
    }

    /// # Errors
    /// `TooLarge`: so much is not left.
    pub(super) fn check(self, what: &'static str, bytes: u64) -> Result<(), FileFault> {
        if bytes > self.left() { Err(self.lacks(what, bytes)) } else { Ok(()) }
    }

    /// Takes so much for as long as the file is read.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(super) fn take(&mut self, what: &'static str, bytes: u64) -> Result<(), FileFault> {
        self.check(what, bytes)?;
        self.taken += bytes;
        Ok(())
    }

    /// The fault of a part that needs so much, with what was taken before.
    pub(super) fn lacks(self, what: &'static str, bytes: u64) -> FileFault {
        FileFault::TooLarge { what, bytes: self.taken.saturating_add(bytes) }
    }
}
