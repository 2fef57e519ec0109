"""The exact fast paths of the networks: attention behind one function."""
