//! Reading stretches of history: without the group, at offsets that the caller chooses.

use rdkafka::consumer::Consumer;
use siltstone_spec::{SourceCluster, TableSpec};

use super::source::{KafkaOptions, KafkaSource};
use crate::{error::IngestError, source::RecordSource};

impl KafkaSource {
    /// A source that never joins the group, to be begun with [`Self::begin_at`].
    ///
    /// # Errors
    /// As [`Self::with_options`].
    pub fn of_history(
        cluster: &SourceCluster,
        table: &TableSpec,
        options: KafkaOptions,
    ) -> Result<Self, IngestError> {
        Self::build(cluster, table, options, false)
    }

    /// Reads these partitions, each from this offset on, and no others. Only of a source that is in no group.
    ///
    /// # Errors
    /// `ClientFatal`: the client does not take the positions.
    pub fn begin_at(&mut self, positions: &[(i32, i64)]) -> Result<(), IngestError> {
        let before: Vec<i32> = self.partitions.iter().map(|(partition, _)| partition).collect();
        for partition in before {
            self.partitions.remove(partition);
        }
        self.offered = positions.iter().map(|(partition, _)| *partition).collect();
        self.assign(positions)
    }

    /// Reads no more of a partition that [`Self::begin_at`] named.
    ///
    /// # Errors
    /// `ClientFatal`: the client does not let go of it.
    pub fn leave(&mut self, partition: i32) -> Result<(), IngestError> {
        self.partitions.remove(partition);
        if let Some(open) = &mut self.open {
            open.queue.discard(|id| id == partition);
        }
        let consumer = self.consumer()?;
        self.changed(consumer.pause(&self.names(&[partition])), "the end of a partition")
    }
}
