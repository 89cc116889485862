CREATE TABLE audit_exports (
  organisation_id TEXT PRIMARY KEY,
  sequence BIGINT NOT NULL
);
