"""Several documents in a window: who sees whom, and where each place is."""

from __future__ import annotations

import torch

from generative.nets.documents import first_places, positions_within, same_document
from tests.support.sampling_cases import VOCAB, sharp_net

DOCUMENT = torch.tensor([[0, 0, 0, 1, 1, 2, 3, 3], [0, 1, 1, 1, 1, 1, 1, 1]])


def test_places_in_documents():
    assert positions_within(DOCUMENT).tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]
    assert first_places(DOCUMENT)[0].tolist() == [True, False, False, True, False, True, True, False]
    seen = same_document(DOCUMENT)
    assert seen[0, 4].nonzero()[:, 0].tolist() == [3, 4]
    assert same_document(DOCUMENT, causal=True)[0, 3].nonzero()[:, 0].tolist() == [3]


def test_packed_documents_are_computed_as_if_apart():
    ids = torch.randint(VOCAB, DOCUMENT.shape, generator=torch.Generator().manual_seed(2))
    for causal in (False, True):
        net = sharp_net(causal=causal)
        options = {"positions": positions_within(DOCUMENT), "visible": same_document(DOCUMENT, causal)}
        with torch.no_grad():
            packed = net(ids, **options)
            for row, numbers in enumerate(DOCUMENT):
                for number in numbers.unique():
                    places = numbers == number
                    torch.testing.assert_close(packed[row, places], net(ids[row, places][None])[0])
            assert not torch.allclose(packed, net(ids), atol=1e-3)
