ALTER TABLE data_keys ADD COLUMN unused_ms BIGINT NOT NULL DEFAULT 0;

CREATE INDEX data_keys_of_organisation ON data_keys (organisation_id)
