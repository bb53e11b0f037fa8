"""What a plugin promises: for each kind one descriptor and one Protocol."""
