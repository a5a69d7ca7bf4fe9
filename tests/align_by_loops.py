"""The losses of module `align` by their definition: one pair at a time, in plain sums of exponentials."""

from __future__ import annotations

import torch


def unit(vector):
    length = vector.norm()
    return vector / length if length > 0 else vector


def cos(a, b):
    return unit(a) @ unit(b)


def by_loops(name, image_emb, text_emb, **options):
    """Return the loss called ``name``; every option must be given."""
    loops = Loops(image_emb, text_emb, **options)
    if not any(loops.mass):
        return 0 * image_emb.sum()
    if name == "siglip":
        return loops.sigmoid_loss()
    pairs = [(i, j) for i in loops.items for j in loops.items if loops.weight[i][j] > 0]
    return sum(loops.weight[i][j] * loops.term(name, i, j) for i, j in pairs) / sum(loops.mass)


class Loops:
    def __init__(self, image_emb, text_emb, *, target, described, exclude, temperature, bias):
        self.image_emb, self.text_emb = image_emb, text_emb
        self.items = range(len(image_emb))
        self.target, self.described, self.exclude = target.tolist(), described, exclude
        self.temperature, self.bias = temperature, bias
        self.weight = [[self.target[i][j] * bool(described[j]) for j in self.items] for i in self.items]
        self.mass = [sum(row) for row in self.weight]

    def excluded(self, i, j):
        return any(self.target[i][b] > 0 and bool(self.exclude[b, j]) for b in self.items)

    def candidate(self, i, j):
        return self.mass[i] > 0 and bool(self.described[j]) and (self.weight[i][j] > 0 or not self.excluded(i, j))

    def score(self, i, j):
        image, text = self.image_emb[i], self.text_emb[j]
        return cos(image, text) / self.temperature

    def to_text(self, i, j):
        others = (torch.exp(self.score(i, k)) for k in self.items if self.candidate(i, k))
        return -torch.log(torch.exp(self.score(i, j)) / sum(others))

    def to_image(self, i, j):
        others = (torch.exp(self.score(k, j)) for k in self.items if self.candidate(k, j))
        return -torch.log(torch.exp(self.score(i, j)) / sum(others))

    def term(self, name, i, j):
        if name == "cosine":
            return 2 - 2 * cos(self.image_emb[i], self.text_emb[j])
        if name == "infonce-one-way":
            return self.to_text(i, j)
        return (self.to_text(i, j) + self.to_image(i, j)) / 2

    def sigmoid_loss(self):
        total = 0.0
        for i in self.items:
            for j in self.items:
                if self.candidate(i, j):
                    right, logit = self.weight[i][j], self.score(i, j) + self.bias
                    total = total - right * torch.log(torch.sigmoid(logit))
                    total = total - (self.mass[i] - right) * torch.log(torch.sigmoid(-logit))
        return total / sum(self.mass)
