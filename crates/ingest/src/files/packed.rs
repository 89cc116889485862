//! Files that were compressed as a whole.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::{FileFault, FileInput};

/// Bytes by which a file is known.
const MAGIC_BYTES: usize = 4;
/// Windows of zstd larger than this are refused: 2 to this many bytes are held.
const WINDOW_LOG_MAX: u32 = 27;

/// How a file was compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// As its first bytes say.
    #[default]
    Auto,
    None,
    Gzip,
    Zstd,
}

/// The bytes of a file, unpacked.
///
/// # Errors
/// `Input`: its first bytes did not come.
pub fn unpacked(mut input: Box<dyn FileInput>, packing: Packing) -> Result<Box<dyn FileInput>, FileFault> {
    let failed = |error: io::Error| FileFault::read(&error, "it ends too early");
    let packing = match packing {
        Packing::Auto => {
            let mut head = Vec::with_capacity(MAGIC_BYTES);
            (&mut input).take(MAGIC_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
            let found = match head.as_slice() {
                [0x1f, 0x8b, ..] => Packing::Gzip,
                [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
                _ => Packing::None,
            };
            input = Box::new(Headed { head: io::Cursor::new(head), rest: input });
            found
        }
        given => given,
    };
    Ok(match packing {
        Packing::Gzip => Box::new(Unpacked(MultiGzDecoder::new(input))),
        Packing::Zstd => {
            let mut decoder = zstd::Decoder::new(input).map_err(failed)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
            Box::new(Unpacked(decoder))
        }
        Packing::None | Packing::Auto => input,
    })
}

/// Bytes that were looked at, then the others.
struct Headed {
    head: io::Cursor<Vec<u8>>,
    rest: Box<dyn FileInput>,
}

impl Read for Headed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.head.read(to)? {
            0 => self.rest.read(to),
            read => Ok(read),
        }
    }
}

impl FileInput for Headed {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let left = self.head.get_ref().len() as u64 - self.head.position();
        let here = left.min(bytes);
        self.head.set_position(self.head.position() + here);
        self.rest.skip(bytes - here)
    }
}

struct Unpacked<R>(R);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl<R: Read + Send> FileInput for Unpacked<R> {}
