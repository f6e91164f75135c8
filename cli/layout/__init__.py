"""Images in files: OCI layouts and what `docker save` writes, read and written."""
