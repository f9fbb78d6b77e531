"""Records to one HTML page; torch-free."""
