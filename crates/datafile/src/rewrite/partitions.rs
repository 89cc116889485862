//! What a merge over many partitions puts out, as data files: one partition after the other, so that one file
//! is open at a time.

use std::{ops::Range, sync::Arc};

use object_store::path::Path;
use tokio::sync::mpsc;

use super::{merge::Emit, output::sample, window::Window};
use crate::{
    encode::EncoderOptions,
    error::Result,
    gather::Gather,
    layout::{Layout, WrittenFile},
    partition::PartitionValues,
    roll::{Roll, Target},
    upload::Part,
    write::{STRIPE_SLICES, slice_rows},
};

/// The files of all partitions.
pub(super) struct Partitions<'a> {
    layout: &'a Layout,
    table_location: &'a Path,
    parts: &'a mpsc::Sender<Part>,
    /// Rows still to be written.
    to_come: u64,
    target: Option<Arc<Target<'a>>>,
    open: Option<(PartitionValues, Roll<'a>)>,
    files: Vec<WrittenFile>,
}

impl<'a> Partitions<'a> {
    pub(super) fn new(
        layout: &'a Layout,
        table_location: &'a Path,
        parts: &'a mpsc::Sender<Part>,
        rows: u64,
    ) -> Self {
        Self { layout, table_location, parts, to_come: rows, target: None, open: None, files: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Result<Vec<WrittenFile>> {
        self.close()?;
        Ok(self.files)
    }

    fn close(&mut self) -> Result<()> {
        if let Some((_, roll)) = self.open.take() {
            self.files.append(&mut roll.finish()?);
        }
        Ok(())
    }

    /// What all files share; encodings are chosen by the first rows.
    fn target(&mut self, window: &Window, columns: &[Gather]) -> Result<Arc<Target<'a>>> {
        if let Some(target) = &self.target {
            return Ok(Arc::clone(target));
        }
        let sample = sample(window, columns)?;
        let target = Arc::new(Target {
            layout: self.layout,
            options: EncoderOptions::new(self.layout, &sample)?,
            table_location: self.table_location,
            parts: self.parts,
            sort_order_id: self.layout.sort_order.order_id,
        });
        self.target = Some(Arc::clone(&target));
        Ok(target)
    }

    /// Writes the rows of one partition. `last`: no more of them come.
    fn write(&mut self, window: &Window, columns: &[Gather], rows: Range<usize>, last: bool) -> Result<()> {
        let values = window.partition_values(rows.start, self.layout.partition_spec.spec_id)?;
        if self.open.as_ref().is_some_and(|(open, _)| *open != values) {
            self.close()?;
        }
        let target = self.target(window, columns)?;
        let roll = match &mut self.open {
            Some((_, roll)) => roll,
            none => {
                let roll = Roll::new(target, &values)?;
                &mut none.insert((values, roll)).1
            }
        };
        let slice_rows = slice_rows(window.bytes, window.rows.len());
        let mut start = rows.start;
        while start < rows.end {
            let left = if last { (rows.end - start) as u64 } else { self.to_come };
            let room = roll.room(slice_rows, usize::try_from(left).unwrap_or(usize::MAX))?;
            let end = rows.end.min(start + room.min(slice_rows * STRIPE_SLICES));
            let keys = (window.sort_key(start)?, window.sort_key(end - 1)?);
            let stripe = &window.rows[start..end];
            roll.write(stripe.len(), slice_rows, keys, |column, range| columns[column].rows(&stripe[range]))?;
            self.to_come = self.to_come.saturating_sub(stripe.len() as u64);
            start = end;
        }
        Ok(())
    }
}

impl Emit for Partitions<'_> {
    fn window(&mut self, window: &Window) -> Result<()> {
        let columns = window.gather(self.layout.schema.fields.len())?;
        for range in &window.partitions {
            let last = range.end < window.rows.len();
            self.write(window, &columns, range.clone(), last)?;
        }
        Ok(())
    }
}
