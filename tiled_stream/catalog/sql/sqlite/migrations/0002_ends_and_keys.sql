-- Where the producer ended a node's stream: the log may have let go of that record. 0: not ended.
ALTER TABLE nodes ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;

-- Whether a child was ever given a key that clients do not find by a URL (`is_odd` in domain/nodes.py).
ALTER TABLE nodes ADD COLUMN has_odd_keys INTEGER NOT NULL DEFAULT 0;
