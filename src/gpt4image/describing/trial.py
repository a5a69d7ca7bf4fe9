"""The verb trial: several describers and prompts on one small sample, before all images are paid for.

Everything is asked by ``describe``, so that the answers lie in the store as if they had been asked for all images.
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt4image.artifacts.answers import CLASS, DESCRIPTION, Prompt, fill, load_prompt
from gpt4image.artifacts.class_lists import class_names
from gpt4image.artifacts.store import Description, DescriptionStore
from gpt4image.base.errors import ConfigError, DescriberError, first_few, first_line
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig, DistillConfig, TrialConfig
from gpt4image.config.base import listed
from gpt4image.config.distilling import ANSWERS
from gpt4image.config.results import TrialResult
from gpt4image.data import Dataset
from gpt4image.describing.asking import asked_images
from gpt4image.describing.describe import classes_of, describe
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.prices import FREE
from gpt4image.describing.questions import asking_for
from gpt4image.describing.tried import Findings, Tried, find, table
from gpt4image.labelling.audited import audited_images
from gpt4image.labelling.pictures import FEATURES, read_pictures
from gpt4image.options import command_line
from gpt4image.pages.cards import Thumbnails
from gpt4image.pages.numbers import duration
from gpt4image.pages.page import render
from gpt4image.selecting.order import at_random, stratified

PAGE, MOST_SHOWN = "trial.html", 60
FIRST = 4  # images that each is asked about before somebody agrees to pay
PER_STRATUM, CANDIDATES = 5, 10  # images of the sample per cluster; images that are clustered, per image of the sample


class Combination(NamedTuple):
    """A describer and a prompt: its name, what is asked of whom, and what identifies the answers in the store."""

    name: str
    asking: DescribeConfig
    settings: Mapping[str, Any]
    prompt: Prompt
    is_free: bool


def trial(config: TrialConfig) -> TrialResult:
    """Ask each combination about the same images, and return which is the cheapest that is not shown to be worse.

    Raises ConfigError, DataError, StoreError; DescriberError: nobody answered; KeyboardInterrupt: nobody agrees to pay.
    """
    _, images = asked_images(config, config.data)
    if images.regions is not None or images.labels.ndim == 2:
        raise ConfigError(f"has boxes, masks or several classes per image ({config.data}); trial compares one class.",
                          field="data")  # fmt: skip
    combined = _combinations(config, images)
    truth = _truth(config, images, combined[0].prompt)
    rows = _sample(config, images, truth)
    agreed = config.yes or config.max_cost is not None or all(one.is_free for one in combined)
    if not agreed and not sys.stdin.isatty():
        raise ConfigError("is needed, as nobody is there to agree: the most that all answers may cost (or --yes for no "
                          "limit).", field="max_cost")  # fmt: skip
    digests, broken = [images.digests[row] for row in rows], dict[str, str]()
    skipped = _ask(combined, digests[:FIRST], broken)
    rest = _within(config, combined, digests[FIRST:], broken, agreed)
    skipped += _ask(combined, rest, broken)
    if len(broken) == len(combined):
        raise DescriberError("; ".join(f"{name}: {why}" for name, why in broken.items()))
    rows = rows[: FIRST + len(rest)]
    digests = digests[: len(rows)]
    tried = [_read(config, one, digests) for one in combined]
    found = find(tried, [truth.get(digest, "") for digest in digests])
    page = config.page or config.store.with_name(PAGE)
    pictures = Thumbnails(images)
    cards = [_card(images, rows[row], pictures, tried, row, truth) for row in found.differ[:MOST_SHOWN].tolist()]
    facts = f"{len(digests):,} images of {config.data}, {found.labelled:,} with a label; " \
        f"the answers differ on {len(found.differ):,}."  # fmt: skip
    write_text(page, render("trial.html", data=config.data, facts=facts, rows=found.rows, why=found.why,
                            best=found.best, cards=cards, total=len(found.differ)))  # fmt: skip
    with DescriptionStore(config.store) as store:
        spent = store.spent({}).known
    best = None if found.best is None else combined[found.best]
    return TrialResult(
        path=config.store,
        images=len(digests),
        labelled=found.labelled,
        differ=len(found.differ),
        recommended=None if best is None else best.name,
        cost_usd=round(spent, 6) if spent else None,
        page=page,
        combinations=found.rows,
        text="\n".join([table(found.rows), *_confused(found), "", *found.why]),
        skipped=(*images.skipped, *dict.fromkeys(skipped), *pictures.skipped,
                 *(Skipped(name=name, reason=why) for name, why in broken.items())),
        wrote=(config.store, page),
        next="" if best is None else _next(config, best),
        read_rows=lambda: found.rows,
    )  # fmt: skip


def _combinations(config: TrialConfig, images: Dataset) -> list[Combination]:
    """Return each describer with each prompt. Raises ConfigError, and what describers refuse."""
    describers, prompts = listed(config.describers), listed(config.prompts)
    if len(describers) * max(1, len(prompts)) < 2:
        raise ConfigError(f"= {config.describers}: give at least two, or one and two --prompts.", field="describers")
    urls = [one.strip() or None for one in (config.base_url or "").split(",")]
    numbers: Any = config.price or ()
    prices = [numbers[start : start + 2] for start in range(0, len(numbers), 2)]
    for name, given in (("base_url", urls), ("price", prices or [None])):
        if len(given) not in (1, len(describers)) or (name == "price" and len(numbers) % 2):
            raise ConfigError(f"needs one for all {len(describers)} describers, or one each.", field=name)
    found = list[Combination]()
    for number, spec in enumerate(describers):
        for prompt in prompts or ("",):
            asking = DescribeConfig(
                **{name: getattr(config, name) for name in (
                    "data", "store", "splits", "val_fraction", "test_fraction", "classes", "max_tokens", "max_side",
                    "concurrency")},
                describer=spec, ask=f"{DESCRIPTION},{CLASS}" if prompt else CLASS, prompt=prompt or ("short",),
                base_url=urls[number % len(urls)], price=prices[number % len(prices)] if prices else None,
                order="random",
            )  # fmt: skip
            made, base = load_describer(asking), load_prompt(asking.prompt[0])
            if base.class_conditioned:
                raise ConfigError(f"= {prompt}: it tells the class, so that answers show nothing.", field="prompts")
            free, classes = made.price == FREE, classes_of(asking, images, replayed=False)
            asking = asking.model_copy(update={"max_cost": None if free else config.max_cost})
            name = f"{spec} {base.name}" if len(prompts) > 1 else spec
            asked = asking_for(fill(base, images.classes), listed(asking.ask), classes)
            found.append(Combination(name, asking, made.settings, asked, free))
    return found


def _truth(config: TrialConfig, images: Dataset, prompt: Prompt) -> dict[str, str]:
    """Return the true class of images by digest, as the list that is asked about spells it."""
    names, truth = class_names(prompt.class_names), dict[str, str]()
    for row in np.flatnonzero(images.labelled).tolist():
        truth[images.digests[row]] = names.find(images.label_names(row)[0]) or ""
    if config.audit is not None:
        rows, cells = audited_images(config.audit, images.digests)
        truth |= {images.digests[row]: names.find(cell) or "" for row, cell in zip(rows.tolist(), cells, strict=True)}
    return {digest: name for digest, name in truth.items() if name}


def _sample(config: TrialConfig, images: Dataset, truth: Mapping[str, str]) -> list[int]:
    """Return the rows of the sample, in an order of which any first ones are a sample; those with a label come first.

    Of a random part of the images, each cluster of pictures gives in proportion to its size.
    """
    digests, first = np.unique(images.digests, return_index=True)
    shuffled = at_random(digests.tolist(), "trial")
    known = np.array([digest in truth for digest in digests[shuffled]], bool)
    some = np.concatenate([shuffled[known], shuffled[~known]])[: CANDIDATES * config.sample]
    labelled = np.array([digests[row] in truth for row in some], bool)
    order = np.arange(len(some))
    if len(some) > config.sample:
        wanted = np.zeros(len(images), bool)
        wanted[first[some]] = True
        pictures, _ = read_pictures(images, wanted, "auto", config.store.with_suffix(FEATURES))
        if pictures is not None:
            strata = max(2, config.sample // PER_STRATUM)
            order = stratified(np.asarray(pictures.vectors[first[some]], np.float32), order, strata)
    order = np.concatenate([order[labelled[order]], order[~labelled[order]]])
    return first[some[order]][: config.sample].tolist()


def _ask(combined: Sequence[Combination], digests: Sequence[str], broken: dict[str, str]) -> list[Skipped]:
    """Ask each about some images; who cannot be asked is noted as ``broken``, and the others go on."""
    skipped = list[Skipped]()
    for one in combined if digests else ():
        if one.name not in broken:
            say(f"{one.name}: {len(digests):,} images")
            try:
                outcome = describe(one.asking, {*digests}, exactly=True)
            except DescriberError as error:
                broken[one.name] = first_line(error)
                say(f"{one.name} cannot be asked: {broken[one.name]}")
                continue
            if outcome.failed and not (outcome.described + outcome.already_described + outcome.rejected):
                broken[one.name] = outcome.skipped[-1].reason
            skipped += [Skipped(name=item.name, reason=f"{one.name}: {item.reason}") for item in outcome.skipped]
    return skipped


def _within(
    config: TrialConfig, combined: Sequence[Combination], digests: list[str], broken: Mapping[str, str], agreed: bool
) -> list[str]:
    """Return the images for which there is money, by the answers so far, once somebody agrees to pay for them."""
    usd, seconds, unknown = 0.0, 0.0, list[str]()
    for one in combined if digests else ():
        if one.name not in broken and not one.is_free:
            dry = one.asking.model_copy(update={"dry_run": True})
            estimate = describe(dry, {*digests}, exactly=True)
            if estimate.estimate_requests:
                usd, seconds = usd + (estimate.estimate_usd or 0.0), seconds + (estimate.estimate_seconds or 0.0)
                unknown += [one.name] if estimate.estimate_usd is None else []
    if unknown:
        say(f"What {first_few(unknown)} costs is not known: no price is known for this model (--price names it).")
    if not usd and (agreed or not unknown):
        return digests
    say(f"The rest of the sample is expected to cost ${usd:,.4f} and to take {duration(seconds)}.")
    if not agreed and console.input("Go on? [y/N] ", markup=False).strip().lower() not in ("y", "yes"):
        raise KeyboardInterrupt
    if config.max_cost is None:
        return digests
    with DescriptionStore(config.store) as store:
        left = max(0.0, config.max_cost - store.spent({}).known)
    if usd <= left:
        return digests
    kept = math.floor(len(digests) * left / usd)
    say(f"--max-cost {config.max_cost:g} has room for {FIRST + kept:,} images each; a higher number asks about more.")
    return digests[:kept]


def _read(config: TrialConfig, one: Combination, digests: Sequence[str]) -> Tried:
    """Return what a combination answered, from the store."""
    place = {digest: row for row, digest in enumerate(digests)}
    said, asked = np.full(len(digests), "", object), np.zeros(len(digests), bool)
    failed, kinds, costs, seconds = Counter[str](), Counter[str](), list[float | None](), list[float]()
    with DescriptionStore(config.store) as store:
        stored: list[Description] = [
            row
            for status in ("ok", "failed")
            for row in store.descriptions(digests=digests, describer=one.settings, status=status)
            if row.prompt == one.prompt
        ]
    for row in stored:
        asked[place[row.digest]] = row.text is not None or row.answer is not None  # a call that failed is no answer
        costs.append(row.cost_usd)
        seconds += [] if row.latency_s is None else [row.latency_s]
        if row.status == "ok" and row.answer is not None:
            said[place[row.digest]] = row.answer.class_name or ""
            kinds[row.answer.kind] += 1
        else:
            failed[(row.error or "no answer")[:80]] += 1
    paid = [cost for cost in costs if cost is not None]
    usd = sum(paid) / len(costs) if paid else 0.0 if one.is_free and costs else None
    return Tried(one.name, said, asked, usd, sum(seconds) / len(seconds) if seconds else None, failed, kinds["none"],
                 kinds["outside_list"])  # fmt: skip


def _card(
    images: Dataset, row: int, pictures: Thumbnails, tried: Sequence[Tried], place: int, truth: Mapping[str, str]
) -> dict[str, Any]:
    names = dict[str, list[str]]()
    for one in tried:
        if one.asked[place]:
            names.setdefault(one.said[place] or "no class", []).append(one.name)
    notes = [f"{said}: {', '.join(who)}" for said, who in names.items()]
    return {
        "key": images.keys[row],
        "picture": pictures.of(row),
        "label": truth.get(images.digests[row]),
        "notes": notes,
    }


def _confused(found: Findings) -> list[str]:
    """Return what each confuses and why answers are missing, in lines."""
    lines = list[str]()
    for row in found.rows:
        parts = [f"{true} called {said} ({count})" for true, said, count in row["confuses"]]
        parts += [f"none of these ({row['none']})"] if row["none"] else []
        parts += [f"outside the list ({row['outside']})"] if row["outside"] else []
        parts += [f"{why} ({count})" for why, count in row["failed"].items()]
        lines += [f"{row['name']}: {', '.join(parts)}"] if parts else []
    return lines


def _next(config: TrialConfig, best: Combination) -> str:
    """Return the command that goes on with the recommended one: its answers are there already."""
    given: Any = dict(best.asking) | {"max_cost": config.max_cost}
    if config.store.name != ANSWERS:
        return command_line("describe", DescribeConfig, given | {"order": "auto"})
    names = DistillConfig.model_fields.keys() - {"order", "ask", "batch_size", "frames", "temperature"}
    ask = {"ask": best.asking.ask} if best.asking.ask != CLASS else {}
    own = {name: given[name] for name in names & given.keys()} | ask | {"out": config.store.parent}
    return command_line("distill", DistillConfig, own)
