//! What is to be read: pure, from the files that there are and what the ledger holds of them.

use siltstone_lakehouse::ledger::{Import, Imports, path_digest};

use super::list::SourceFile;

/// A file to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    /// Its place in the list.
    pub(super) file: usize,
    /// The first record that the table lacks.
    pub(super) start: u64,
    /// The records before that are those of another content under the same name: for the ledger they are held.
    pub(super) resumed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) tasks: Vec<Task>,
    /// Files of which the table has every record.
    pub(super) held: u64,
    /// Files that are others than those of the same names of which the table has records.
    pub(super) changed: Vec<usize>,
}

impl Plan {
    /// Everything from the first record.
    pub(super) fn of_nothing_held(files: &[SourceFile]) -> Self {
        let tasks = (0..files.len()).map(|file| Task { file, start: 0, resumed: false });
        Self { tasks: tasks.collect(), ..Self::default() }
    }
}

/// What a source file is called in the ledger: digests of what it is called, and of its content.
pub(super) fn source_of(file: &SourceFile, key: &[u8; 32]) -> String {
    name_of(file, key) + &path_digest(key, &format!("import-content:{}", file.content))
}

fn name_of(file: &SourceFile, key: &[u8; 32]) -> String {
    path_digest(key, &format!("import:{}", file.url))
}

pub(super) fn plan(files: &[SourceFile], held: &Imports, key: &[u8; 32], resume_changed: bool) -> Plan {
    let mut plan = Plan::default();
    for (number, file) in files.iter().enumerate() {
        let source = source_of(file, key);
        if let Some(Import { records, complete }) = held.get(&source) {
            match complete {
                true => plan.held += 1,
                false => plan.tasks.push(Task { file: number, start: *records, resumed: false }),
            }
            continue;
        }
        let name = name_of(file, key);
        let others = held.range(name.clone()..).take_while(|(other, _)| other.starts_with(&name));
        match others.map(|(_, import)| import.records).max() {
            None => plan.tasks.push(Task { file: number, start: 0, resumed: false }),
            Some(records) if resume_changed => {
                plan.tasks.push(Task { file: number, start: records, resumed: true })
            }
            Some(_) => plan.changed.push(number),
        }
    }
    plan
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use siltstone_ingest::files::FileFormat;

    use super::*;

    fn file(url: &str, content: &str) -> SourceFile {
        SourceFile {
            path: url.into(),
            url: url.to_owned(),
            bytes: 1,
            content: content.to_owned(),
            etag: None,
            changed_ms: 0,
            format: FileFormat::Avro,
        }
    }

    #[test]
    fn files_are_read_on_where_the_ledger_ends() {
        let key = [7; 32];
        let files = [file("a", "1"), file("b", "1"), file("c", "1"), file("d", "2"), file("ab", "1")];
        let import = |records, complete| Import { records, complete };
        let held = Imports::from([
            (source_of(&files[0], &key), import(10, true)),
            (source_of(&files[1], &key), import(7, false)),
            (source_of(&file("d", "1"), &key), import(3, true)),
        ]);
        let found = plan(&files, &held, &key, false);
        let task = |file, start| Task { file, start, resumed: false };
        assert_eq!(found.tasks, [task(1, 7), task(2, 0), task(4, 0)]);
        assert_eq!((found.held, found.changed.as_slice()), (1, &[3][..]));
        let found = plan(&files, &held, &key, true);
        assert!(found.changed.is_empty());
        assert_eq!(found.tasks[2], Task { file: 3, start: 3, resumed: true });
    }
}
