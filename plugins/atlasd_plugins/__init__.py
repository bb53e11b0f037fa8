"""The plugins that ship with atlasd; they come in through the same door as everybody else."""
