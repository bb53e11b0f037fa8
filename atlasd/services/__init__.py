"""The services role: parent of every supervised process, standard library only."""
