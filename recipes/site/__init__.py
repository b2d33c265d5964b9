"""What the site of the pages has beside them, and what is checked of it: `make docs`."""
