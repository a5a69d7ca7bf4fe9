"""Search: the index of a dataset, queries, the page of the images that were found."""
