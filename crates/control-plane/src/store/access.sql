CREATE TABLE data_keys (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  purpose TEXT NOT NULL,
  master TEXT NOT NULL,
  wrapped {bytes} NOT NULL
);

CREATE TABLE service_accounts (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (organisation_id, name)
);

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  service_account_id TEXT NOT NULL REFERENCES service_accounts (id) ON DELETE CASCADE,
  hash TEXT NOT NULL,
  scope TEXT NOT NULL,
  label TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL,
  revoked_ms BIGINT NOT NULL
);

CREATE TABLE role_bindings (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  service_account_id TEXT NOT NULL REFERENCES service_accounts (id) ON DELETE CASCADE,
  role TEXT NOT NULL,
  pattern TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (service_account_id, role, pattern)
);

CREATE TABLE audit (
  organisation_id TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  resource TEXT NOT NULL,
  outcome TEXT NOT NULL,
  address TEXT NOT NULL,
  hash {bytes} NOT NULL,
  PRIMARY KEY (organisation_id, sequence)
);

CREATE TABLE audit_heads (
  organisation_id TEXT PRIMARY KEY,
  sequence BIGINT NOT NULL,
  hash {bytes} NOT NULL,
  first_sequence BIGINT NOT NULL,
  first_hash {bytes} NOT NULL
);
