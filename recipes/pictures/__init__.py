"""The diagrams and charts of the pages, of stored figures: `python -m recipes.pictures`."""
