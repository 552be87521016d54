"""Two releases of somebody's models, of which the newer one has a column more."""
