//! The way of buffers from the polling thread to the flush task: one at a time, in order.

use std::sync::mpsc;

use siltstone_protocol::Change;
use tokio::runtime::Handle;

use crate::{
    error::WorkerError,
    flush::{FlushJob, Flushed, Flusher},
};

type Reply = Result<Flushed, WorkerError>;

/// Sends work to the flush task and takes its answers. Used from the polling thread only.
#[derive(Debug)]
pub struct Lane {
    jobs: tokio::sync::mpsc::Sender<(Work, mpsc::Sender<Reply>)>,
    in_flight: Option<mpsc::Receiver<Reply>>,
}

enum Work {
    Flush(Box<FlushJob>),
    Change(Box<Change>),
}

impl Lane {
    /// Starts the flush task. It ends when the lane is dropped and its last job is done.
    pub fn start(runtime: &Handle, mut flusher: Flusher) -> Self {
        let (jobs, mut queue) = tokio::sync::mpsc::channel::<(Work, mpsc::Sender<Reply>)>(1);
        runtime.spawn(async move {
            while let Some((work, reply)) = queue.recv().await {
                let ended = match work {
                    Work::Flush(job) => flusher.flush(*job).await,
                    Work::Change(change) => flusher.commit_change(*change).await,
                };
                // Nobody waits only when the polling thread is gone; the ledger has the outcome.
                let _ = reply.send(ended);
            }
        });
        Self { jobs, in_flight: None }
    }

    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Hands a buffer over. Call only when the lane is not busy.
    ///
    /// # Errors
    /// Gives the job back when the lane is busy or its task is gone.
    pub fn submit(&mut self, job: FlushJob) -> Result<(), Box<FlushJob>> {
        match self.send(Work::Flush(Box::new(job))) {
            Ok(()) => Ok(()),
            Err(Work::Flush(job)) => Err(job),
            Err(Work::Change(_)) => Ok(()),
        }
    }

    /// Hands a change without rows over. False when the lane is busy or its task is gone.
    pub fn submit_change(&mut self, change: Change) -> bool {
        self.send(Work::Change(Box::new(change))).is_ok()
    }

    fn send(&mut self, work: Work) -> Result<(), Work> {
        if self.is_busy() {
            return Err(work);
        }
        let (reply, answer) = mpsc::channel();
        match self.jobs.try_send((work, reply)) {
            Ok(()) => {
                self.in_flight = Some(answer);
                Ok(())
            }
            Err(error) => Err(error.into_inner().0),
        }
    }

    /// The answer to the job in flight, waiting for it at most this long.
    pub fn answer(&mut self, timeout: std::time::Duration) -> Option<Reply> {
        let answer = match self.in_flight.as_ref()?.recv_timeout(timeout) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => return None,
            // The runtime is shutting down under us.
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(Flushed::Abandoned),
        };
        self.in_flight = None;
        Some(answer)
    }
}
