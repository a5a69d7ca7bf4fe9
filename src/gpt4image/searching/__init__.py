"""What search is made of: the index of a dataset, what is asked, the page of what was found."""
