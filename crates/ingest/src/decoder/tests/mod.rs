mod engine;
mod evolution;
mod protobuf;
mod staged;
