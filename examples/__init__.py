"""Models and applications that are not the bundled ones, as somebody else would write them."""
