-- Where the producer ended a node's stream: the log may have let go of that record. 0: not ended.
ALTER TABLE nodes ADD COLUMN ended bigint NOT NULL DEFAULT 0;
