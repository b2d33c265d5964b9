"""Drawing pictures, and comparing them. Needs the `torch` extra."""
