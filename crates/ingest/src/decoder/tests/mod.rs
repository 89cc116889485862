mod engine;
mod merging;
mod protobuf;
