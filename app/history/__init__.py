"""Routes and schemas of ``/history``."""
