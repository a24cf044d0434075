"""Webhooks: what happens in the tree, told to addresses that somebody registered.

The way of an event: the persister, a reader of the log, puts it into the outbox before it moves its watermark (`outbox.py`);
the dispatcher finds out whom it concerns (`expansion.py`) and tells them (`dispatcher.py`). Nothing of this is on the path of a
request.
"""
