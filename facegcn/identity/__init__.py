"""Face recognition networks that measure how much of a person a reconstruction keeps."""
