//! Messages in batches, borrowed from librdkafka: the one module with unsafe code.
//!
//! Why: the safe client wraps every message in an event, a reference count and several clock reads, which costs
//! about as much as decoding it. Here a batch of messages is taken from a queue of our own in one call.
//!
//! 1. `forward` redirects a partition's fetch queue into our queue. Only messages, end-of-partition marks and errors of
//!    that partition travel this way; rebalances, client errors and logs stay on the consumer's queue, which the
//!    safe client serves. (Consuming the consumer's queue in batches would be wrong: librdkafka then answers
//!    rebalances by itself.)
//! 2. `fill` takes messages into the hand; `peek` lends the first; `pop` frees it.
//! 3. What is left in the hand stays ours until popped or discarded.
//!
//! Trap: this interface counts an end-of-partition mark as a record in librdkafka's own note of the position, from
//! which a partition goes on after a rebalance. So the source keeps positions itself and seeks at every rebalance.
//!
//! Invariants: every pointer in `hand` came from `rd_kafka_consume_batch_queue`, was not freed, and is freed exactly
//! once. The consumer outlives the queue, because this struct holds both and frees the queue first.

#![allow(
    unsafe_code,
    reason = "the batch interface of librdkafka has no safe wrapper; see the module's text"
)]

use std::{
    collections::VecDeque,
    ffi::{CStr, CString, c_void},
    ptr::{self, NonNull},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    bindings as sys,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
};

use crate::record::{Headers, Record};

/// Messages asked for in one call, at most.
const BATCH_MAX: usize = 1024;
/// The hand is kept near this many bytes, whatever the size of a message.
const HAND_BYTES: usize = 4 << 20;

/// What the queue delivered.
pub(super) enum Item<'a> {
    Record(Record<'a>),
    /// An end-of-partition mark or an error of one partition; `code` is librdkafka's number.
    Mark {
        partition: i32,
        offset: i64,
        code: i32,
    },
}

/// A queue of our own, fed by partitions of one topic, and the hand of messages taken from it.
pub(super) struct BatchQueue<C: ConsumerContext> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    hand: VecDeque<NonNull<sys::rd_kafka_message_t>>,
    scratch: Vec<*mut sys::rd_kafka_message_t>,
    /// Messages to ask for, adapted to their size.
    batch: usize,
    topic: CString,
    /// Last: outlives `queue` (see `drop`).
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues and messages may be used from any thread, one at a time; `&mut self` or ownership is
// needed for every access to `hand`, and the consumer is Sync.
unsafe impl<C: ConsumerContext> Send for BatchQueue<C> {}

impl<C: ConsumerContext> BatchQueue<C> {
    pub(super) fn new(consumer: Arc<BaseConsumer<C>>, topic: &str) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client pointer is valid as long as `consumer` lives.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) })?;
        Some(Self {
            queue,
            hand: VecDeque::with_capacity(BATCH_MAX),
            scratch: vec![ptr::null_mut(); BATCH_MAX],
            batch: BATCH_MAX,
            topic,
            consumer,
        })
    }

    /// Redirects a partition's messages into this queue. What its own queue holds already is moved here, in order,
    /// so calling it again is harmless. Needed again after each assignment: librdkafka undoes it when a partition
    /// stops.
    pub(super) fn forward(&self, partition: i32) -> bool {
        // SAFETY: client and topic name are valid; the handle is checked, used, and given back within this function.
        // The redirection itself is reference-counted inside librdkafka.
        unsafe {
            let client = self.consumer.client().native_ptr();
            let Some(handle) =
                NonNull::new(sys::rd_kafka_queue_get_partition(client, self.topic.as_ptr(), partition))
            else {
                return false;
            };
            sys::rd_kafka_queue_forward(handle.as_ptr(), self.queue.as_ptr());
            sys::rd_kafka_queue_destroy(handle.as_ptr());
        }
        true
    }

    /// Takes messages into the empty hand: waits at most `timeout` for the first, not at all for the rest.
    /// Returns how many.
    pub(super) fn fill(&mut self, max: usize, timeout: Duration) -> usize {
        if !self.hand.is_empty() {
            return self.hand.len();
        }
        let max = max.min(self.batch);
        // The call waits until the array is full or time is up: hence one message first, when waiting.
        if max > 0 && !timeout.is_zero() && self.take(1, timeout) == 0 {
            return 0;
        }
        let rest = max - self.hand.len();
        if rest > 0 {
            self.take(rest, Duration::ZERO);
        }
        self.adapt();
        self.hand.len()
    }

    fn take(&mut self, count: usize, timeout: Duration) -> usize {
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let count = count.min(self.scratch.len());
        // SAFETY: `scratch` has room for `count` pointers; the queue is alive. Librdkafka writes as many as it returns,
        // and hands over ownership of those.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), millis, self.scratch.as_mut_ptr(), count)
        };
        let taken = usize::try_from(taken).unwrap_or(0).min(count);
        self.hand.extend(self.scratch.iter().take(taken).copied().filter_map(NonNull::new));
        taken
    }

    /// Keeps the bytes in hand bounded: large messages come in smaller batches.
    fn adapt(&mut self) {
        if self.hand.is_empty() {
            return;
        }
        // SAFETY: pointers in `hand` are valid messages.
        let bytes: usize = self.hand.iter().map(|message| unsafe { message.as_ref() }.len).sum();
        let mean = bytes / self.hand.len() + 64;
        self.batch = (HAND_BYTES / mean).clamp(1, BATCH_MAX);
    }

    /// The first item in hand, lent until the next call.
    pub(super) fn peek(&self) -> Option<Item<'_>> {
        self.hand.front().map(|message| {
            // SAFETY: the message is valid until popped, which needs `&mut self`.
            unsafe { item(*message) }
        })
    }

    /// Frees the first item in hand.
    pub(super) fn pop(&mut self) {
        if let Some(message) = self.hand.pop_front() {
            // SAFETY: it left the hand, so this is the only time it is freed.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) }
        }
    }

    /// Frees everything in hand that belongs to a partition for which `dropped` is true.
    pub(super) fn discard(&mut self, dropped: impl Fn(i32) -> bool) {
        self.hand.retain(|message| {
            // SAFETY: the message is valid; when not kept it leaves the hand here and is freed once.
            unsafe {
                let keep = !dropped(message.as_ref().partition);
                if !keep {
                    sys::rd_kafka_message_destroy(message.as_ptr());
                }
                keep
            }
        });
    }
}

impl<C: ConsumerContext> Drop for BatchQueue<C> {
    fn drop(&mut self) {
        self.discard(|_| true);
        // SAFETY: the handle is destroyed once, while the client still lives. Partitions that still point here keep
        // the inner queue alive, disabled: what they deliver is freed by librdkafka.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// # Safety
/// `message` must be valid for `'a`.
unsafe fn item<'a>(message: NonNull<sys::rd_kafka_message_t>) -> Item<'a> {
    // SAFETY: promised by the caller. The code is read as a number: a broker may send one that the enum lacks.
    let (raw, code) =
        unsafe { (message.as_ref(), (&raw const (*message.as_ptr()).err).cast::<i32>().read()) };
    if code != 0 {
        return Item::Mark { partition: raw.partition, offset: raw.offset, code };
    }
    // SAFETY: key and payload belong to the message and are valid for `'a`.
    let (key, value) = unsafe { (bytes(raw.key, raw.key_len), bytes(raw.payload, raw.len)) };
    Item::Record(Record {
        partition: raw.partition,
        offset: raw.offset,
        timestamp_ms: timestamp(message),
        key,
        value,
        headers: Headers::native(NativeHeaders { message, _borrow: std::marker::PhantomData }),
    })
}

fn timestamp(message: NonNull<sys::rd_kafka_message_t>) -> Option<i64> {
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is valid (called from `item` only).
    let millis = unsafe { sys::rd_kafka_message_timestamp(message.as_ptr(), &raw mut kind) };
    let available = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    (available && millis >= 0).then_some(millis)
}

/// # Safety
/// `start` must be null or point to `len` bytes valid for `'a`.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// The headers of a message in hand, parsed by librdkafka at the first look.
#[derive(Clone, Copy)]
pub(crate) struct NativeHeaders<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    _borrow: std::marker::PhantomData<&'a ()>,
}

impl<'a> NativeHeaders<'a> {
    /// The header at this place. A name that is not UTF-8 is cut where it stops being so.
    pub(crate) fn get(&self, index: usize) -> Option<(&'a str, Option<&'a [u8]>)> {
        // SAFETY: the message is valid for `'a`; parsed headers belong to it. Only the polling thread sees it
        // (`Record` is neither Send nor Sync), so parsing at first look does not race. Values that librdkafka returns
        // are checked for null before use.
        unsafe {
            let mut headers = ptr::null_mut();
            let found = sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers);
            if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
                return None;
            }
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            let got =
                sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut len);
            if got != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return None;
            }
            let name = CStr::from_ptr(name).to_bytes();
            let valid = std::str::from_utf8(name)
                .or_else(|cut| std::str::from_utf8(name.get(..cut.valid_up_to()).unwrap_or_default()));
            Some((valid.unwrap_or_default(), bytes(value, len)))
        }
    }
}
