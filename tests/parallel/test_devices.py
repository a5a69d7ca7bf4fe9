import copy
import subprocess
import sys

import timm
import torch

from gpt4image.parallel.devices import depthwise_in_fp32


def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    # In a process of its own: where an earlier test asked malloc for more than there is, glibc serves its thread
    # otherwise from then on.
    code = """
import resource, torch
from gpt4image.parallel.devices import choose_device
choose_device("cpu")
for _ in range(4):  # of a block that is free, something small may take a part: then the next one is new, once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(32_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1_000, "128 MB are 31,250 pages"


def test_depthwise_convolutions_learn_in_fp32_within_bf16_and_a_copy_has_weights_of_its_own() -> None:
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()  # with a subclass of Conv2d
    model = copy.deepcopy(plain)
    depthwise_in_fp32(model)
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            depthwise = module.groups > 1
            module.register_forward_hook(lambda _, __, found, own=depthwise: kinds[own].add(found.dtype))
    images = torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        model(images).sum().backward()
        assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
        with torch.no_grad():
            kinds[True].clear()
            model(images)
    assert kinds[True] == {torch.bfloat16}
    assert model.state_dict().keys() == plain.state_dict().keys()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weights in twin.parameters():
            weights.zero_()
        assert torch.equal(model(images), plain(images)) and not twin(images).any()
