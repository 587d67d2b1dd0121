"""Services of the operating system: files, signals, memory, the user's cache folder."""
