//! Files that were compressed as a whole.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::{FileFault, FileInput, Room, fault::ZSTD_WINDOW};

/// Bytes by which a file is known; the head of a frame of zstd has no more.
const HEAD_BYTES: usize = 18;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Windows of zstd larger than this are refused: 2 to this many bytes are held.
const WINDOW_LOG_MAX: u32 = 27;
const WINDOW_LOG_MIN: u32 = 10;
/// What the library of zstd says of a window that it is not to hold.
const WINDOW_ERROR: &str = "Frame requires too much memory for decoding";

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

/// The bytes of a file, unpacked. What that holds is taken from the room.
///
/// # Errors
/// `Input`: its first bytes did not come; `TooLarge`, `Unsupported`: its window.
pub fn unpacked(
    mut input: Box<dyn FileInput>,
    packing: Packing,
    room: &mut Room,
) -> Result<Box<dyn FileInput>, FileFault> {
    let failed = |error: io::Error| FileFault::read(&error, "it ends too early");
    let mut head = Vec::with_capacity(HEAD_BYTES);
    if matches!(packing, Packing::Auto | Packing::Zstd) {
        (&mut input).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
        input = Box::new(Headed { head: io::Cursor::new(head.clone()), rest: input });
    }
    let packing = match packing {
        Packing::Auto if head.starts_with(&[0x1f, 0x8b]) => Packing::Gzip,
        Packing::Auto if head.starts_with(&ZSTD_MAGIC) => Packing::Zstd,
        Packing::Auto => Packing::None,
        given => given,
    };
    Ok(match packing {
        Packing::Gzip => Box::new(Unpacked(MultiGzDecoder::new(input))),
        Packing::Zstd => {
            // What has no such head is no zstd, as the first bytes that are read will say.
            let window = window_bytes(&head).unwrap_or(0);
            if window > 1 << WINDOW_LOG_MAX {
                return Err(FileFault::Unsupported("its zstd window is larger than 128 MiB"));
            }
            // Frames that follow may have larger ones: half of the room is theirs.
            let half = (room.left() / 2).max(1).ilog2().min(WINDOW_LOG_MAX);
            let log = window.max(1).next_power_of_two().ilog2().max(half).max(WINDOW_LOG_MIN);
            room.take(ZSTD_WINDOW, 1 << log)?;
            let mut decoder = zstd::Decoder::new(input).map_err(failed)?;
            decoder.window_log_max(log).map_err(failed)?;
            Box::new(Unpacked(decoder))
        }
        Packing::None | Packing::Auto => input,
    })
}

/// What a frame of zstd says that unpacking it holds (RFC 8878, 3.1.1.1).
pub(super) fn window_bytes(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&ZSTD_MAGIC)?;
    let (descriptor, rest) = rest.split_first()?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + u32::from(window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The content is one piece, and the window as large as it.
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let (length, more) = [(1, 0), (2, 256), (4, 0), (8, 0)].get(usize::from(descriptor >> 6)).copied()?;
    let mut size = [0; 8];
    size.get_mut(..length)?.copy_from_slice(rest.get(dictionary..dictionary + length)?);
    u64::from_le_bytes(size).checked_add(more)
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
        let is_window =
            |error: &io::Error| error.kind() == io::ErrorKind::Other && error.to_string() == WINDOW_ERROR;
        self.0.read(to).map_err(|error| match is_window(&error) {
            true => io::ErrorKind::OutOfMemory.into(),
            false => error,
        })
    }
}

impl<R: Read + Send> FileInput for Unpacked<R> {}
