"""Routes and schemas of ``/records``."""
