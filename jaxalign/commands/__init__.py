"""The commands of `jaxalign`, one file each."""
