"""The losses of module `align` by their definition: one pair at a time, in plain sums of exponentials."""

from __future__ import annotations

import torch


def unit(vector):
    length = vector.norm()
    return vector / length if length > 0 else vector


def cos(a, b):
    return unit(a) @ unit(b)


def smooth(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def by_loops(name, image_emb, text_emb, **options):
    """Return the loss called ``name``; every option must be given."""
    loops = Loops(image_emb, text_emb, **options)
    if not any(loops.mass):
        return 0 * image_emb.sum()
    if name == "siglip":
        return loops.sigmoid_loss()
    if name == "relational":
        return loops.relations()
    weight = loops.soft_weight() if name == "soft-infonce" else loops.weight
    pairs = [(i, j) for i in loops.items for j in loops.texts if weight[i][j] > 0]
    return sum(weight[i][j] * loops.term(name, i, j) for i, j in pairs) / sum(weight[i][j] for i, j in pairs)


class Loops:
    def __init__(self, image_emb, text_emb, *, target, described, exclude, positive, temperature, bias, normalise):
        self.image_emb, self.text_emb = image_emb, text_emb
        self.items, self.texts = range(len(image_emb)), range(len(text_emb))
        self.target, self.described, self.exclude, self.positive = target.tolist(), described, exclude, positive
        self.temperature, self.bias, self.normalise = temperature, bias, normalise
        self.weight = [[self.mix(i, lambda b, j=j: self.share(b, j)) for j in self.texts] for i in self.items]
        self.mass = [sum(row) for row in self.weight]

    def mix(self, i, of_item):
        return sum(self.target[i][b] * of_item(b) for b in self.items)

    def is_right(self, b, j):
        return bool(self.described[b]) and bool(self.described[j]) and (b == j or bool(self.positive[b, j]))

    def share(self, b, j):
        return self.is_right(b, j) / max(sum(self.is_right(b, k) for k in self.texts), 1)

    def excluded(self, i, j):
        return any(self.target[i][b] > 0 and bool(self.exclude[b, j]) for b in self.items)

    def candidate(self, i, j):
        return self.mass[i] > 0 and bool(self.described[j]) and (self.weight[i][j] > 0 or not self.excluded(i, j))

    def score(self, i, j):
        image, text = self.image_emb[i], self.text_emb[j]
        return (cos(image, text) if self.normalise else image @ text) / self.temperature

    def to_text(self, i, j):
        others = (torch.exp(self.score(i, k)) for k in self.texts if self.candidate(i, k))
        return -torch.log(torch.exp(self.score(i, j)) / sum(others))

    def to_image(self, i, j):
        others = (torch.exp(self.score(k, j)) for k in self.items if self.candidate(k, j))
        return -torch.log(torch.exp(self.score(i, j)) / sum(others))

    def term(self, name, i, j):
        if name == "cosine":
            return 2 - 2 * cos(self.image_emb[i], self.text_emb[j])
        if name == "smooth-l1":
            width = len(self.image_emb[i])
            return sum(smooth(d * width**0.5) for d in unit(self.image_emb[i]) - unit(self.text_emb[j])) / width
        if name in ("infonce-one-way", "supcon"):
            return self.to_text(i, j)
        return (self.to_text(i, j) + self.to_image(i, j)) / 2

    def soft_weight(self):
        texts, temperature = self.text_emb.detach(), float(self.temperature.detach())
        soft = [[0.0 for _ in self.texts] for _ in self.items]
        for b in self.items:
            if self.described[b]:
                anchor = sum(self.share(b, j) * unit(texts[j]) for j in self.texts if self.is_right(b, j))
                alike = {
                    j: float(torch.exp(cos(anchor, texts[j]) / temperature)) for j in self.texts if self.described[j]
                }
                for j, value in alike.items():
                    soft[b][j] = value / sum(alike.values())
        mixed = [
            [self.mix(i, lambda b, j=j: soft[b][j]) * self.candidate(i, j) for j in self.texts] for i in self.items
        ]
        return [[self.mass[i] * q / sum(mixed[i]) if q else 0.0 for q in mixed[i]] for i in self.items]

    def sigmoid_loss(self):
        total = 0.0
        for i in self.items:
            for j in self.texts:
                if self.candidate(i, j):
                    right = self.mix(i, lambda b, j=j: self.is_right(b, j))
                    logit = self.score(i, j) + self.bias
                    total = total - right * torch.log(torch.sigmoid(logit))
                    total = total - (self.mass[i] - right) * torch.log(torch.sigmoid(-logit))
        return total / sum(self.mass)

    def relations(self):
        texts = self.text_emb.detach()
        mixed = [sum(w * unit(texts[j]) for j, w in enumerate(row) if w) for row in self.weight]
        total, norm = 0 * self.image_emb.sum(), 0.0
        for i in self.items:
            for k in self.items:
                apart = any(self.target[k][c] > 0 and self.excluded(i, c) for c in self.items)
                if i != k and self.mass[i] * self.mass[k] > 0 and not apart:
                    gap = cos(self.image_emb[i], self.image_emb[k]) - cos(mixed[i], mixed[k])
                    total, norm = total + self.mass[i] * self.mass[k] * gap**2, norm + self.mass[i] * self.mass[k]
        return total / norm if norm else total
