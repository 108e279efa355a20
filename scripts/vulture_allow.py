"""Names that vulture cannot see being used."""
