"""What the program asks of the operating system: files, signals, memory, its cache folder."""
