"""One file a command of `jaxalign`."""
