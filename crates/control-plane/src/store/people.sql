CREATE TABLE users (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  provider TEXT NOT NULL,
  identity {bytes} NOT NULL,
  sealed {bytes} NOT NULL,
  created_ms BIGINT NOT NULL,
  last_sign_on_ms BIGINT NOT NULL,
  disabled_ms BIGINT NOT NULL,
  UNIQUE (organisation_id, identity)
);

CREATE TABLE user_role_bindings (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role TEXT NOT NULL,
  pattern TEXT NOT NULL,
  origin TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (user_id, role, pattern, origin)
);

CREATE TABLE sessions (
  digest {bytes} PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_ms BIGINT NOT NULL,
  used_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL
);

CREATE INDEX sessions_of_user ON sessions (user_id, created_ms);

CREATE TABLE sign_ons (
  digest {bytes} PRIMARY KEY,
  provider TEXT NOT NULL,
  expires_ms BIGINT NOT NULL
);

CREATE TABLE ip_allow_lists (
  id TEXT PRIMARY KEY,
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  network TEXT NOT NULL,
  label TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  UNIQUE (organisation_id, network)
);

CREATE TABLE idempotency_keys (
  organisation_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
  principal TEXT NOT NULL,
  digest {bytes} NOT NULL,
  request {bytes} NOT NULL,
  status BIGINT NOT NULL,
  answer TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY (principal, digest)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_ms)
