"""The nodes in a real checkout of ComfyUI."""
