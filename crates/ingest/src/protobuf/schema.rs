//! A `.proto` text with what it imports, compiled, and one of its messages.
//!
//! Absent on purpose: the compiler's own messages, which quote the text; a place in the text is told instead.

use std::{collections::HashMap, fmt};

use miette::Diagnostic;
use protox::{
    Compiler, Error,
    file::{File, FileResolver},
    prost_reflect::{FileDescriptor, MessageDescriptor},
};
use siltstone_protocol::RejectReason;

use super::known;
use crate::{IngestError, registry::SchemaReference};

/// What the schema itself is called among its imports; no import can have this name.
const ROOT: &str = "siltstone:schema";
/// Brackets nest at most this deep; the compiler recurses over those in options.
const NESTING_MAX: usize = 200;
/// Messages within messages that a record can name.
const PATH_MAX: usize = 7;

/// Which message of a schema a record is: an index among the file's messages, then among the messages inside that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessagePath {
    length: u8,
    indexes: [u16; PATH_MAX],
}

impl MessagePath {
    /// The file's first message.
    pub const FIRST: Self = Self { length: 1, indexes: [0; PATH_MAX] };

    /// Takes message indexes off the front of a framed body: a count and as many indexes, zigzag varints; a
    /// single 0 is the first message.
    ///
    /// Source: Confluent's wire format.
    #[inline]
    pub fn read(body: &[u8]) -> Result<(Self, &[u8]), RejectReason> {
        match body {
            [0, rest @ ..] => Ok((Self::FIRST, rest)),
            _ => Self::read_long(body),
        }
    }

    fn read_long(body: &[u8]) -> Result<(Self, &[u8]), RejectReason> {
        let (length, mut rest) = small(body)?;
        let mut path = Self { length: length as u8, indexes: [0; PATH_MAX] };
        let indexes = path.indexes.get_mut(..usize::from(length)).ok_or(RejectReason::BadFraming)?;
        for index in indexes {
            (*index, rest) = small(rest)?;
        }
        Ok((path, rest))
    }

    fn indexes(&self) -> &[u16] {
        self.indexes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// A zigzag varint from 0 to 65535.
fn small(bytes: &[u8]) -> Result<(u16, &[u8]), RejectReason> {
    let mut value = 0u32;
    for (index, byte) in bytes.iter().take(3).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            let negative = value & 1 == 1;
            let number = u16::try_from(value >> 1).ok().filter(|_| !negative);
            let rest = bytes.get(index + 1..).unwrap_or_default();
            return Ok((number.ok_or(RejectReason::BadFraming)?, rest));
        }
    }
    Err(RejectReason::BadFraming)
}

/// A message with everything that its fields refer to.
pub struct ProtobufSchema {
    message: MessageDescriptor,
}

impl fmt::Debug for ProtobufSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtobufSchema").field("message", &self.message.full_name()).finish_non_exhaustive()
    }
}

/// A compiled `.proto` text.
pub struct ProtobufFile {
    file: FileDescriptor,
}

impl fmt::Debug for ProtobufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtobufFile").finish_non_exhaustive()
    }
}

impl ProtobufFile {
    /// Compiles the text. `references` are imports by the names that the text has for them.
    ///
    /// # Errors
    /// `SchemaRefused`, with the place in the text.
    pub fn compile(text: &str, references: &[SchemaReference]) -> Result<Self, IngestError> {
        let mut texts: HashMap<String, String> =
            references.iter().map(|reference| (reference.name.clone(), reference.schema.clone())).collect();
        texts.insert(ROOT.to_owned(), text.to_owned());
        if let Some((name, _)) = texts.iter().find(|(_, text)| nests_too_deep(text)) {
            return Err(IngestError::schema_refused(shown(name), "its brackets nest deeper than 200"));
        }
        let refused = |error: &Error| refusal(error, &texts);
        let mut compiler = Compiler::with_file_resolver(Texts(texts.clone()));
        compiler.include_imports(true).open_file(ROOT).map_err(|error| refused(&error))?;
        let file = compiler.descriptor_pool().get_file_by_name(ROOT);
        file.map(|file| Self { file }).ok_or_else(|| IngestError::internal("a compiled file is not there"))
    }

    /// The message at this place of the text.
    pub fn at(&self, path: &MessagePath) -> Option<ProtobufSchema> {
        let (first, inner) = path.indexes().split_first()?;
        let mut message = self.file.messages().nth(usize::from(*first))?;
        for index in inner {
            let next = message.child_messages().nth(usize::from(*index))?;
            message = next;
        }
        Some(ProtobufSchema { message })
    }

    /// The message of this full name (the name alone, if the file's package is left out), in the text or what it
    /// imports; without a name the first of the text.
    ///
    /// # Errors
    /// `SchemaRefused`: there is none.
    pub fn message(&self, name: Option<&str>) -> Result<ProtobufSchema, IngestError> {
        let found = match name {
            Some(name) => self.named(name),
            None => self.file.messages().next(),
        };
        found.map(|message| ProtobufSchema { message }).ok_or_else(|| {
            let why = match name {
                Some(name) => format!("it has no message {name}; check message_type"),
                None => "it has no message".to_owned(),
            };
            IngestError::schema_refused("of Protobuf", why)
        })
    }

    /// True when this name means that message.
    pub fn is_named(&self, message: &ProtobufSchema, name: &str) -> bool {
        self.named(name).is_some_and(|named| named == message.message)
    }

    fn named(&self, name: &str) -> Option<MessageDescriptor> {
        let pool = self.file.parent_pool();
        let in_package = || pool.get_message_by_name(&format!("{}.{name}", self.file.package_name()));
        pool.get_message_by_name(name).or_else(in_package)
    }
}

impl ProtobufSchema {
    pub(super) fn message(&self) -> &MessageDescriptor {
        &self.message
    }

    /// The message's full name.
    pub fn name(&self) -> &str {
        self.message.full_name()
    }
}

fn nests_too_deep(text: &str) -> bool {
    let mut depth = 0usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' | b'<' => depth += 1,
            b'}' | b']' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > NESTING_MAX
    })
}

fn shown(name: &str) -> String {
    if name == ROOT { "of Protobuf".to_owned() } else { format!("of import {name}") }
}

fn refusal(error: &Error, texts: &HashMap<String, String>) -> IngestError {
    let file = error.file().unwrap_or(ROOT);
    let text = texts.get(file).map(String::as_str).unwrap_or_default();
    let place = error.labels().and_then(|mut labels| labels.next()).map(|label| place(text, label.offset()));
    let place = place.map(|(line, column)| format!(" (line {line}, column {column})")).unwrap_or_default();
    let why = if error.is_file_not_found() {
        "an import is neither a reference of the schema nor well known"
    } else if error.is_parse() {
        "it is not a .proto text that this program reads (proto2 or proto3)"
    } else {
        "it does not compile: a name is unknown or defined twice, a number or an option is wrong, or imports form a cycle"
    };
    IngestError::schema_refused(shown(file), format!("{why}{place}"))
}

/// Line and column of a position, from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    (line, 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count())
}

/// The schema, its references, and what is well known, in this order.
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => known::open(name),
        }
    }
}
