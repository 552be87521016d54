"""Programs that put a running service to work; no part of the library and none of the service."""
