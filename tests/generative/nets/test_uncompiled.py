from __future__ import annotations

import torch

from generative.nets.uncompiled import uncompiled


def test_the_compiler_leaves_the_function_alone_and_what_is_around_it_is_compiled():
    compiling, graphs = [], []

    @uncompiled
    def doubled(x):
        compiling.append(torch.compiler.is_compiling())
        return 2 * x

    def whole(x):
        return doubled(x + 1).sin()

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    x = torch.arange(3.0)
    expected = whole(x)
    compiled = torch.compile(whole, backend=backend)
    assert torch.equal(compiled(x), expected)
    assert torch.equal(compiled(x), expected)
    assert compiling == [False] * 3
    called = [str(node.target) for graph in graphs for node in graph.graph.nodes if node.op.startswith("call")]
    assert len(graphs) == 2, called
    assert not any("mul" in name for name in called)
