"""What Sphinx is told beside its own: the REST reference, and that no page asks anybody else for anything."""
