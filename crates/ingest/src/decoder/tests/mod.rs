mod engine;
mod merging;
