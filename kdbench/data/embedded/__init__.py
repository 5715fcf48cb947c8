"""The data that travels with the package, and the script that rebuilds it."""
