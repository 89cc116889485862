//! JSON lines: one record a line. Empty lines are no records.

use super::{FileFault, FileInput, Room};

/// A line longer than this is a damaged file, or one of another format.
const LINE_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 256 << 10;
/// What a line takes: the buffer and the one that it grows into, its row, and the record beside that.
const LINE_COPIES: u64 = 4;

/// The lines of a file.
pub struct Lines {
    input: Box<dyn FileInput>,
    room: Room,
    buffer: Vec<u8>,
    /// What of the buffer is filled and not yet given out.
    start: usize,
    end: usize,
    ended: bool,
    /// Number of the next record.
    next: u64,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Lines {
    pub fn new(input: Box<dyn FileInput>, room: Room) -> Self {
        Self { input, room, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, ended: false, next: 0 }
    }

    /// The next record and its number; `None` at the end of the file.
    ///
    /// # Errors
    /// `Input`; `Damaged`, `Unsupported`: it is no file of lines; `TooLarge`: a line.
    pub fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, FileFault> {
        loop {
            let mut searched = self.start;
            let end = loop {
                match memchr::memchr(b'\n', &self.buffer[searched..self.end]) {
                    Some(at) => break searched + at,
                    None if self.ended => break self.end,
                    None => {
                        let held = self.end - self.start;
                        self.fill()?;
                        searched = self.start + held;
                    }
                }
            };
            if self.start == self.end && self.ended {
                return Ok(None);
            }
            let line = self.start..end;
            self.start = (end + 1).min(self.end);
            let blank = self.buffer[line.clone()].iter().all(u8::is_ascii_whitespace);
            if !blank {
                let number = self.next;
                self.next += 1;
                let line = &self.buffer[line];
                let line =
                    if number == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
                return Ok(Some((number, line)));
            }
        }
    }

    /// Reads on: what is not given out moves to the front.
    fn fill(&mut self) -> Result<(), FileFault> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            if self.buffer.len() >= LINE_BYTES_MAX {
                return Err(FileFault::Unsupported("it has a line of more than 64 MiB"));
            }
            let wanted = self.buffer.len() * 2;
            self.room.check("a line of it", LINE_COPIES * wanted as u64)?;
            self.buffer.resize(wanted, 0);
        }
        let room = &mut self.buffer[self.end..];
        let read = loop {
            match self.input.read(room) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = read.map_err(|error| FileFault::read(&error, "its compressed bytes end too early"))?;
        self.ended = read == 0;
        self.end += read;
        Ok(())
    }
}
