//! Records in files: Avro object container files and JSON lines, read from first to last in bounded memory.
//!
//! Records are numbered from 0 in file order, so that a range of them means the same rows on every reading. What is
//! before a wanted record is passed over as cheaply as the format lets: whole blocks of a container file are not
//! even unpacked.
//!
//! What is held at once stays within a [`Room`] that the caller reserved; a file that needs more says how much.
//!
//! Absent on purpose: where files lie, which are read, and what becomes of their rows. Faults name no value and no
//! path.

mod codec;
mod container;
mod fault;
mod format;
mod lines;
mod packed;
mod room;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use container::{Block, ContainerFile};
pub use fault::FileFault;
pub use format::FileFormat;
pub use lines::Lines;
pub use packed::{Packing, unpacked};
pub use room::Room;

use std::io::Read;

/// The bytes of a file, from the first to the last.
pub trait FileInput: Read + Send {
    /// Passes over bytes without reading them.
    ///
    /// # Errors
    /// Those of reading.
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        let mut passed = Read::take(&mut *self, bytes);
        let passed = std::io::copy(&mut passed, &mut std::io::sink())?;
        if passed == bytes { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl FileInput for Box<dyn FileInput> {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        (**self).skip(bytes)
    }
}

impl FileInput for std::io::Cursor<Vec<u8>> {}
