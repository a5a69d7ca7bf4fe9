"""One run measured: its outputs, its accuracy, and how well images and texts find each other."""
