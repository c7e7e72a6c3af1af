"""Measurements beside other projects; they need the extra `bench`, and nothing in the package needs them."""
