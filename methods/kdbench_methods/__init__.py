"""The KD methods that come with kdbench, one file each, registered through entry points like anybody's plug-in."""
