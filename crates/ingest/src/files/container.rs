//! Avro object container files: a header with the writer's schema, then blocks of records, each compressed on its
//! own.

use std::io::Read;

use super::{
    FileFault, FileInput, Room,
    codec::{BLOCK, BLOCK_COPIES, Codec},
};

const MAGIC: [u8; 4] = *b"Obj\x01";
const SYNC_BYTES: usize = 16;
/// The schema and everything else in a header.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// A block, compressed: writers make blocks of some kilobytes to some megabytes.
const PACKED_BYTES_MAX: u64 = 64 << 20;

const CUT: &str = "it ends in the middle of a block";

/// A container file being read.
pub struct ContainerFile {
    input: Box<dyn FileInput>,
    room: Room,
    schema: String,
    codec: Codec,
    sync: [u8; SYNC_BYTES],
    packed: Vec<u8>,
    block: Vec<u8>,
    /// Number of the next block's first record.
    next: u64,
}

impl std::fmt::Debug for ContainerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerFile").field("codec", &self.codec).finish_non_exhaustive()
    }
}

/// The records of one block, one after the other.
pub struct Block<'a> {
    /// Number of the first.
    pub first: u64,
    pub records: u64,
    pub bytes: &'a [u8],
}

impl std::fmt::Debug for Block<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block")
            .field("first", &self.first)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl ContainerFile {
    /// Reads the header.
    ///
    /// # Errors
    /// `Damaged`: it is no container file. `Unsupported`: its codec. `TooLarge`: its header.
    pub fn open(mut input: Box<dyn FileInput>, mut room: Room) -> Result<Self, FileFault> {
        const NONE: FileFault = FileFault::Damaged("it is no Avro object container file");
        let failed = |error: std::io::Error| FileFault::read(&error, "its header ends too early");
        let mut magic = [0; MAGIC.len()];
        match input.read_exact(&mut magic) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(NONE),
            other => other.map_err(failed)?,
        }
        if magic != MAGIC {
            return Err(NONE);
        }
        let (mut schema, mut codec) = (None, Codec::Null);
        let mut left = HEADER_BYTES_MAX;
        loop {
            let mut count = long(input.as_mut())?.ok_or(NONE)?;
            if count == 0 {
                break;
            }
            if count < 0 {
                long(input.as_mut())?.ok_or(NONE)?;
                count = count.checked_neg().ok_or(NONE)?;
            }
            for _ in 0..count {
                let key = text(input.as_mut(), &mut left, room)?;
                let value = text(input.as_mut(), &mut left, room)?;
                match key.as_slice() {
                    b"avro.schema" => schema = Some(String::from_utf8(value).map_err(|_| NONE)?),
                    b"avro.codec" => codec = Codec::of_name(&value)?,
                    _ => {}
                }
            }
        }
        let mut sync = [0; SYNC_BYTES];
        input.read_exact(&mut sync).map_err(failed)?;
        let schema = schema.ok_or(FileFault::Damaged("its header has no schema"))?;
        room.take("its header", schema.len() as u64)?;
        Ok(Self { input, room, schema, codec, sync, packed: Vec::new(), block: Vec::new(), next: 0 })
    }

    /// The writer's schema, JSON.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The next block that holds a record from `start` on; `None` at the end of the file.
    ///
    /// # Errors
    /// `Damaged`, `Input`; `Unsupported`, `TooLarge`: a block.
    pub fn next_block(&mut self, start: u64) -> Result<Option<Block<'_>>, FileFault> {
        const BAD: FileFault = FileFault::Damaged("the head of a block cannot be read");
        let failed = |error: std::io::Error| FileFault::read(&error, CUT);
        loop {
            let Some(records) = long(self.input.as_mut())? else { return Ok(None) };
            let records = u64::try_from(records).map_err(|_| BAD)?;
            let bytes = long(self.input.as_mut())?.ok_or(FileFault::Damaged(CUT))?;
            let bytes = u64::try_from(bytes).map_err(|_| BAD)?;
            if bytes > PACKED_BYTES_MAX {
                return Err(FileFault::Unsupported("it has a block of more than 64 MiB"));
            }
            let first = self.next;
            self.next = first.checked_add(records).ok_or(BAD)?;
            let wanted = self.next > start;
            if wanted {
                let copies = if matches!(self.codec, Codec::Null) { BLOCK_COPIES } else { 1 };
                self.room.check(BLOCK, copies * bytes)?;
                self.packed.clear();
                let read = (&mut self.input).take(bytes).read_to_end(&mut self.packed).map_err(failed)?;
                if read as u64 != bytes {
                    return Err(FileFault::Damaged(CUT));
                }
            } else {
                self.input.skip(bytes).map_err(failed)?;
            }
            let mut sync = [0; SYNC_BYTES];
            self.input.read_exact(&mut sync).map_err(failed)?;
            if sync != self.sync {
                return Err(FileFault::Damaged("a block does not end with the file's marker"));
            }
            if wanted {
                let bytes = self.codec.unpack(&self.packed, &mut self.block, self.room)?;
                // A record takes a byte at least, or there is nothing in it to read.
                if records > bytes.len() as u64 {
                    return Err(FileFault::Damaged(
                        "a block says that it holds more records than it has bytes",
                    ));
                }
                return Ok(Some(Block { first, records, bytes }));
            }
        }
    }
}

/// A zigzag varint; `None` at the end of the file.
fn long(input: &mut dyn FileInput) -> Result<Option<i64>, FileFault> {
    let mut value = 0_u64;
    for index in 0..10 {
        let mut byte = [0];
        match input.read_exact(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && index == 0 => return Ok(None),
            other => other.map_err(|error| FileFault::read(&error, CUT))?,
        }
        value |= u64::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] < 0x80 {
            return Ok(Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed()));
        }
    }
    Err(FileFault::Damaged("a number of it cannot be read"))
}

/// A length, and as many bytes. What is taken off `left` is never more than that.
fn text(input: &mut dyn FileInput, left: &mut u64, room: Room) -> Result<Vec<u8>, FileFault> {
    const BAD: FileFault = FileFault::Damaged("its header cannot be read");
    let length = long(input)?.and_then(|length| u64::try_from(length).ok()).ok_or(BAD)?;
    *left = left.checked_sub(length).ok_or(BAD)?;
    room.check("its header", HEADER_BYTES_MAX - *left)?;
    let mut bytes = Vec::new();
    let read =
        Read::take(input, length).read_to_end(&mut bytes).map_err(|error| FileFault::read(&error, CUT))?;
    if read as u64 == length { Ok(bytes) } else { Err(BAD) }
}
