-- Where the producer ended a node's stream: the log may have let go of that record. 0: not ended.
ALTER TABLE nodes ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
