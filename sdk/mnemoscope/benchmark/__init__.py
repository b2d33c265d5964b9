"""How long a prompt takes, and what a lower precision changes."""
