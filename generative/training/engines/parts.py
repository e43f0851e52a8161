"""The repeated parts of a network.

Plans ask for them too, and should not import torch's sharded tensors for that: most of a second.
"""

from __future__ import annotations

from torch import nn


def repeated_parts(module: nn.Module) -> list[nn.Module]:
    """Members of the outermost module lists and dicts that hold parameters: blocks, gathered one by one."""
    parts: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            parts += [
                part
                for member in child.children()
                for part in (_inside(member) if isinstance(member, nn.ModuleList | nn.ModuleDict) else [member])
                if any(True for _ in part.parameters())
            ]
        else:
            parts += repeated_parts(child)
    return parts


def _inside(container: nn.Module) -> list[nn.Module]:
    """Members of nested lists and dicts, which have no forward pass of their own."""
    return [
        part
        for member in container.children()
        for part in (_inside(member) if isinstance(member, nn.ModuleList | nn.ModuleDict) else [member])
    ]
