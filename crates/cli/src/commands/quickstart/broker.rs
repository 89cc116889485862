//! librdkafka's mock cluster as a broker for demonstrations.

use std::time::Duration;

use anyhow::Context;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use super::orders;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;

pub struct Broker {
    producer: ThreadedProducer<DefaultProducerContext>,
    bootstrap: String,
    // Last: it goes after the producer.
    _cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

/// How many records were sent.
pub struct Sent {
    pub good: u32,
    pub bad: u32,
}

/// Starts the broker with the topic of the sample orders.
pub fn start() -> anyhow::Result<Broker> {
    let cluster = MockCluster::new(1)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1)?;
    let bootstrap = cluster.bootstrap_servers();
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .create()?;
    Ok(Broker { producer, bootstrap, _cluster: cluster })
}

impl Broker {
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Sends `count` orders from number `first` on, and the broken records among them.
    pub fn produce(&self, first: u32, count: u32) -> anyhow::Result<Sent> {
        let mut sent = Sent { good: 0, bad: 0 };
        for i in first..first.saturating_add(count) {
            self.send(i, &orders::order(i))?;
            sent.good += 1;
            if let Some(value) = orders::broken(i) {
                self.send(i, &value)?;
                sent.bad += 1;
            }
        }
        self.producer.flush(Duration::from_secs(20)).context("the broker did not take the sample orders")?;
        Ok(sent)
    }

    fn send(&self, i: u32, value: &[u8]) -> anyhow::Result<()> {
        let key = i.to_string();
        let mut record = BaseRecord::to(TOPIC).key(&key).payload(value).partition(i as i32 % PARTITIONS);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error).context("the broker refused a sample order"),
            }
        }
    }
}
