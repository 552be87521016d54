"""An application of Django's with a model for each tool."""
