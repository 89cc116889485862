mod engine;
mod merging;
mod protobuf;
mod staged;
