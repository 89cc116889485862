mod engine;
mod evolution;
mod of_files;
mod protobuf;
mod staged;
