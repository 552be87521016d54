"""The service seen from outside, as its users see it: by generated clients, and by requests made from its document."""
