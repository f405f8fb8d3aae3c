"""One module for each reader of files that come from users."""
