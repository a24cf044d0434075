"""Connections to SQL servers, as catalog, storage, accounts and webhooks share them."""
