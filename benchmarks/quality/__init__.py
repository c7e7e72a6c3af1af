"""How good the windows' images are, and what they cost."""
