"""What a detector does with a prompt, from opening a bundle to what is said of it."""
