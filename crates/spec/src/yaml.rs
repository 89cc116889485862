//! YAML text into a tree of plain scalars, lists and mappings, each with its position.
//!
//! 1. Parser events are put together on a stack of our own: nothing recurses while reading.
//! 2. Aliases share the node they name; the tree's size and depth are counted as if they were
//!    written out, and are bounded.
//! 3. `[bucket(16, id)]` is meant as one item, though YAML splits it at the comma: pieces of a plain
//!    scalar with an open bracket are put together again.
//! 4. Scalars stay text. What they mean is decided by the grammar, not by their look.
//!
//! Absent on purpose: merge keys, several documents, keys that are not scalars, tags of one's own.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::{error::Fault, limits};

/// Where something stands in the file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) data: Data,
    /// Nodes below and with this one, aliases followed.
    size: usize,
    depth: usize,
}

pub(crate) enum Data {
    Scalar(Scalar),
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<(Key, Arc<Node>)>),
}

pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Unquoted: may be a null, a boolean or a number.
    pub(crate) plain: bool,
}

pub(crate) struct Key {
    pub(crate) position: Position,
    pub(crate) text: String,
}

impl Node {
    pub(crate) fn scalar(position: Position, text: String, plain: bool) -> Self {
        Self { position, data: Data::Scalar(Scalar { text, plain }), size: 1, depth: 1 }
    }

    pub(crate) fn of(position: Position, data: Data) -> Self {
        let (mut size, mut depth) = (1usize, 1);
        let mut add = |child: &Node| {
            size = size.saturating_add(child.size);
            depth = depth.max(child.depth + 1);
        };
        match &data {
            Data::Scalar(_) => {}
            Data::Sequence(items) => items.iter().for_each(|item| add(item)),
            Data::Mapping(entries) => entries.iter().for_each(|(_, value)| add(value)),
        }
        Self { position, data, size, depth }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(scalar)
            if scalar.plain && matches!(scalar.text.as_str(), "" | "~" | "null"))
    }

    /// The value of a mapping's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Data::Mapping(entries) = &self.data else { return None };
        entries.iter().find(|(known, _)| known.text == key).map(|(_, value)| value.as_ref())
    }

    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        let Data::Sequence(items) = &self.data else { return None };
        items.get(index).map(AsRef::as_ref)
    }
}

/// Reads one document.
pub(crate) fn read(text: &str) -> Result<Arc<Node>, Fault> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            // A fixed phrase of the parser unless it quotes a character, which may be a secret's.
            let info = if error.info().contains('`') { "unexpected character" } else { error.info() };
            fault(Position::from(*error.marker()), format!("not YAML: {info}"))
        })?;
        let position = Position::from(span.start);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(fault(position, "a spec is one YAML document; remove what follows `---`"));
            }
        }
        builder.event(event, position)?;
    }
    let empty = || fault(Position { line: 1, column: 1 }, "the file is empty");
    builder.root.filter(|root| !root.is_null()).ok_or_else(empty)
}

fn fault(position: Position, message: impl Into<String>) -> Fault {
    Fault { line: position.line, column: position.column, path: String::new(), message: message.into() }
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Arc<Node>>,
    root: Option<Arc<Node>>,
}

struct Frame {
    position: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Arc<Node>>),
    Mapping { entries: Vec<(Key, Arc<Node>)>, seen: HashSet<String>, key: Option<Key> },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, position: Position) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && check_tag(tag.as_deref(), position)?;
                self.add(Node::scalar(position, text.into_owned(), plain), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), position)?;
                self.open(position, anchor, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), position)?;
                let content = Content::Mapping { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.open(position, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else { return Ok(()) };
                let data = match frame.content {
                    Content::Sequence(items) => Data::Sequence(items),
                    Content::Mapping { entries, .. } => Data::Mapping(entries),
                };
                self.add(Node::of(frame.position, data), frame.anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.attach(node, position),
                None => Err(fault(position, "the alias names an anchor that is not complete yet")),
            },
            _ => Ok(()),
        }
    }

    fn open(&mut self, position: Position, anchor: usize, content: Content) -> Result<(), Fault> {
        if self.stack.len() >= limits::DEPTH_MAX {
            return Err(too_deep(position));
        }
        self.stack.push(Frame { position, anchor, content });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        let position = node.position;
        if node.size > limits::NODES_MAX {
            return Err(too_many(position));
        }
        let node = Arc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.attach(node, position)
    }

    /// `position`: where it is used, which for an alias is not where it is written.
    fn attach(&mut self, node: Arc<Node>, position: Position) -> Result<(), Fault> {
        if self.stack.len() + node.depth > limits::DEPTH_MAX {
            return Err(too_deep(position));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::Sequence(items) => {
                let piece = plain_text(&node);
                match items.last_mut().and_then(|last| continued(last, piece?, position)) {
                    Some(whole) => drop(items.pop().map(|_| items.push(whole))),
                    None => items.push(node),
                }
            }
            Content::Mapping { entries, seen, key } => match key.take() {
                Some(key) => {
                    let is_bare = plain_text(&node) == Some("");
                    let last = entries.last_mut().filter(|_| is_bare);
                    match last
                        .and_then(|(_, value)| Some((continued(value, &key.text, key.position)?, value)))
                    {
                        Some((whole, value)) => {
                            *value = whole;
                            seen.remove(&key.text);
                        }
                        None => entries.push((key, node)),
                    }
                }
                None => {
                    let Data::Scalar(scalar) = &node.data else {
                        return Err(fault(position, "a key must be plain text"));
                    };
                    if !seen.insert(scalar.text.clone()) {
                        return Err(fault(position, "the key is written twice in one mapping; remove one"));
                    }
                    *key = Some(Key { position, text: scalar.text.clone() });
                }
            },
        }
        Ok(())
    }
}

fn plain_text(node: &Node) -> Option<&str> {
    match &node.data {
        Data::Scalar(Scalar { text, plain: true }) => Some(text),
        _ => None,
    }
}

/// The scalar with its next piece, when its brackets are still open. Both stand on one line: what
/// stands on the next is another entry, not a piece.
fn continued(node: &Node, piece: &str, at: Position) -> Option<Arc<Node>> {
    let text = plain_text(node).filter(|_| node.position.line == at.line)?;
    let count = |brackets: [char; 2]| text.matches(brackets).count();
    let is_open = count(['(', '<']) > count([')', '>']);
    is_open.then(|| Arc::new(Node::scalar(node.position, format!("{text}, {piece}"), true)))
}

/// True when the tag leaves a plain scalar plain.
fn check_tag(tag: Option<&Tag>, position: Position) -> Result<bool, Fault> {
    match tag {
        None => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix != "str"),
        Some(_) => Err(fault(position, "tags are not part of the grammar; remove it")),
    }
}

fn too_deep(position: Position) -> Fault {
    fault(position, format!("nested deeper than {} levels", limits::DEPTH_MAX))
}

fn too_many(position: Position) -> Fault {
    fault(position, format!("more than {} values, with aliases followed", limits::NODES_MAX))
}
