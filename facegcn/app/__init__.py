"""A page in the browser: drop a photo, turn the face, take the files."""
