"""From a folder of images to a model in one command: stages in turn, agreement to pay, what is done already."""
