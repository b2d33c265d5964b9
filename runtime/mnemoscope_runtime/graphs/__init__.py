"""Our own walk over graphs, before any library's parser sees them."""
