//! How the blocks of container files are unpacked.
//!
//! A file has thousands of blocks of some kilobytes, so what a codec needs is made once a file, and a block goes
//! straight into the buffer that it is read from.

use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};
use zstd::bulk::Decompressor;

use super::{FileFault, Room, packed::window_bytes};

/// A block, unpacked.
const BLOCK_BYTES_MAX: u64 = 128 << 20;
/// What is taken for a block that does not tell its size, at first.
const START_BYTES: usize = 64 << 10;
/// What an unpacked block takes: itself, and its rows when it is a single record.
pub(super) const BLOCK_COPIES: u64 = 2;
pub(super) const BLOCK: &str = "a block of it";

const BAD: FileFault = FileFault::Damaged("a block cannot be unpacked");
const LARGE: FileFault = FileFault::Unsupported("it has a block of more than 128 MiB, unpacked");

/// How large a block may become.
#[derive(Clone, Copy)]
struct Limit {
    packed: u64,
    room: Room,
    /// What fits beside the packed bytes.
    most: u64,
}

impl Limit {
    fn of(packed: &[u8], room: Room) -> Self {
        let packed = packed.len() as u64;
        let most = (room.left().saturating_sub(packed) / BLOCK_COPIES).min(BLOCK_BYTES_MAX);
        Self { packed, room, most }
    }

    /// The fault of a block that takes so much.
    fn exceeded(self, bytes: u64) -> FileFault {
        if bytes > BLOCK_BYTES_MAX {
            return LARGE;
        }
        self.room.lacks(BLOCK, self.packed + BLOCK_COPIES * bytes)
    }

    fn check(self, bytes: u64) -> Result<(), FileFault> {
        if bytes > self.most { Err(self.exceeded(bytes)) } else { Ok(()) }
    }
}

/// A codec, with its state.
pub(super) enum Codec {
    Null,
    Deflate(Decompress),
    Zstandard(Decompressor<'static>),
    Snappy,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Deflate(_) => "Deflate",
            Self::Zstandard(_) => "Zstandard",
            Self::Snappy => "Snappy",
        })
    }
}

impl Codec {
    /// By its name in a header.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(super) fn of_name(name: &[u8]) -> Result<Self, FileFault> {
        Ok(match name {
            b"null" | b"" => Self::Null,
            b"deflate" => Self::Deflate(Decompress::new(false)),
            b"zstandard" => Self::Zstandard(Decompressor::default()),
            b"snappy" => Self::Snappy,
            _ => {
                return Err(FileFault::Unsupported(
                    "its codec is none of null, deflate, zstandard and snappy",
                ));
            }
        })
    }

    /// The bytes of a block, in `block` unless they are not packed.
    ///
    /// # Errors
    /// `Damaged`; `Unsupported`: it is too large; `TooLarge`: for this room.
    pub(super) fn unpack<'a>(
        &mut self,
        packed: &'a [u8],
        block: &'a mut Vec<u8>,
        room: Room,
    ) -> Result<&'a [u8], FileFault> {
        let limit = Limit::of(packed, room);
        match self {
            Self::Null => return Ok(packed),
            Self::Deflate(state) => inflate(state, packed, block, limit)?,
            Self::Zstandard(state) => unzstd(state, packed, block, limit)?,
            Self::Snappy => unsnap(packed, block, limit)?,
        }
        Ok(block)
    }
}

fn inflate(
    state: &mut Decompress,
    packed: &[u8],
    block: &mut Vec<u8>,
    limit: Limit,
) -> Result<(), FileFault> {
    state.reset(false);
    block.clear();
    let most = limit.most as usize + 1;
    loop {
        if block.len() == block.capacity() {
            let more = block.len().max(packed.len().saturating_mul(4)).max(START_BYTES);
            block.reserve_exact(more.min(most - block.len()));
        }
        let (read, written) = (state.total_in(), block.len());
        let rest = packed.get(read as usize..).unwrap_or_default();
        let status = state.decompress_vec(rest, block, FlushDecompress::None).map_err(|_| BAD)?;
        if block.len() >= most {
            return Err(limit.exceeded(block.len() as u64));
        }
        match status {
            Status::StreamEnd => return Ok(()),
            Status::Ok | Status::BufError if state.total_in() == read && block.len() == written => {
                // Some writers leave out the mark of the end; records that are cut off are found later.
                return if rest.is_empty() { Ok(()) } else { Err(BAD) };
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

fn unzstd(
    state: &mut Decompressor<'static>,
    packed: &[u8],
    block: &mut Vec<u8>,
    limit: Limit,
) -> Result<(), FileFault> {
    block.clear();
    // A frame that tells its size needs no window beside the block.
    if let Ok(Some(size)) = zstd::zstd_safe::get_frame_content_size(packed) {
        limit.check(size)?;
        block.reserve_exact(size as usize);
        match state.decompress_to_buffer(packed, block) {
            Ok(_) if block.len() as u64 <= limit.most => return Ok(()),
            // There may be other frames behind it.
            _ => block.clear(),
        }
    }
    limit.check(window_bytes(packed).unwrap_or(0))?;
    let stream = zstd::Decoder::with_buffer(packed).map_err(|_| BAD)?;
    stream.take(limit.most + 1).read_to_end(block).map_err(|_| BAD)?;
    limit.check(block.len() as u64)
}

fn unsnap(packed: &[u8], block: &mut Vec<u8>, limit: Limit) -> Result<(), FileFault> {
    let (bytes, sum) = packed.split_last_chunk::<4>().ok_or(BAD)?;
    let length = snap::raw::decompress_len(bytes).map_err(|_| BAD)?;
    limit.check(length as u64)?;
    block.resize(length, 0);
    snap::raw::Decoder::new().decompress(bytes, block).map_err(|_| BAD)?;
    let mut found = flate2::Crc::new();
    found.update(block);
    if found.sum() == u32::from_be_bytes(*sum) { Ok(()) } else { Err(BAD) }
}
