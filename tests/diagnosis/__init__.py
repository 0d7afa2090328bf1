"""Does the diagnosis find what was done to a conversion? Foreign files are written here by code of its own."""
