CREATE TABLE organisations (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_ms BIGINT NOT NULL
);

CREATE TABLE environments (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (organisation_id, name)
);

CREATE TABLE clusters (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  environment_id TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (environment_id, name)
);

CREATE TABLE tables (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  cluster_id TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  table_uuid TEXT NOT NULL,
  source_format TEXT NOT NULL,
  spec_digest TEXT NOT NULL,
  formats TEXT NOT NULL,
  version BIGINT NOT NULL,
  committed_ms BIGINT NOT NULL,
  row_count BIGINT NOT NULL,
  file_count BIGINT NOT NULL,
  byte_count BIGINT NOT NULL,
  sealed {bytes} NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (cluster_id, name)
);

CREATE TABLE files (
  table_id TEXT NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
  digest {bytes} NOT NULL,
  byte_count BIGINT NOT NULL,
  row_count BIGINT NOT NULL,
  version BIGINT NOT NULL,
  sealed {bytes} NOT NULL,
  PRIMARY KEY (table_id, digest)
);

CREATE TABLE commits (
  table_id TEXT NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
  version BIGINT NOT NULL,
  commit_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  committed_ms BIGINT NOT NULL,
  files_added BIGINT NOT NULL,
  files_removed BIGINT NOT NULL,
  rows_added BIGINT NOT NULL,
  rows_removed BIGINT NOT NULL,
  bytes_added BIGINT NOT NULL,
  bytes_removed BIGINT NOT NULL,
  rejected BIGINT NOT NULL,
  PRIMARY KEY (table_id, version)
);

CREATE TABLE offsets (
  table_id TEXT NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
  source_cluster TEXT NOT NULL,
  topic TEXT NOT NULL,
  partition_id BIGINT NOT NULL,
  min_offset BIGINT NOT NULL,
  max_offset BIGINT NOT NULL,
  lost_records BIGINT NOT NULL,
  PRIMARY KEY (table_id, source_cluster, topic, partition_id)
);

CREATE TABLE samples (
  table_id TEXT NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
  at_ms BIGINT NOT NULL,
  row_count BIGINT NOT NULL,
  file_count BIGINT NOT NULL,
  byte_count BIGINT NOT NULL,
  lag_records BIGINT NOT NULL,
  freshness_ms BIGINT NOT NULL,
  backlog_files BIGINT NOT NULL,
  backlog_bytes BIGINT NOT NULL,
  PRIMARY KEY (table_id, at_ms)
);

CREATE TABLE image_parts (
  table_id TEXT NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
  image_id TEXT NOT NULL,
  part BIGINT NOT NULL,
  sealed {bytes} NOT NULL,
  PRIMARY KEY (table_id, image_id, part)
);

CREATE TABLE commands (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  cluster_id TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
  table_name TEXT NOT NULL,
  action TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL
);

CREATE INDEX commands_of_cluster ON commands (cluster_id, id);

CREATE TABLE command_outcomes (
  command_id TEXT NOT NULL REFERENCES commands (id) ON DELETE CASCADE,
  worker_id TEXT NOT NULL,
  outcome TEXT NOT NULL,
  error TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (command_id, worker_id)
);
