"""What search is made of: the index of an image set, what is asked, the page of what was found."""
