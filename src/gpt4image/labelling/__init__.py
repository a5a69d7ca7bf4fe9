"""The teacher: class probabilities of images from answers, texts, class names and labels; labels that look wrong."""
