"""Which approach fits a situation: rules first, then the person's own measurements, then the literature."""
