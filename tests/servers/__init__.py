"""Real servers for tests: Redis (or Valkey) and PostgreSQL, on loopback, each gone when its context ends.

`TEST_REDIS_URL` and `TEST_PG_URL` name servers that run already; without them, servers from pip packages are started. A test that
stops, restarts or empties a server always starts one of its own.
"""
