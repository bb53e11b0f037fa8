"""The commands atlasd and atlasctl, one file for each noun."""
