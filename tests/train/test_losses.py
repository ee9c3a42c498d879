"""Losses against values worked out by hand and formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from binsight.counting import corn_probabilities
from binsight.train.losses import EmbeddingLoss, Relation, corn_loss, soft_targets, softmax_loss

E1, E2 = math.exp(-1), math.exp(-2)


def test_soft_targets_fall_by_e_for_each_step_away() -> None:
    wanted = torch.tensor([[1, E1, E2], [E1, 1, E1], [E2, E1, 1]])
    torch.testing.assert_close(soft_targets(3, 1.0), wanted / wanted.sum(1, keepdim=True))


def test_a_smaller_spread_is_sharper() -> None:
    row = soft_targets(3, 0.5)[0]
    torch.testing.assert_close(row, torch.tensor([1, E2, E2 * E2]) / (1 + E2 + E2 * E2))


def test_no_spread_is_one_hot_and_then_the_loss_is_torchs_cross_entropy() -> None:
    logits, truth = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5
    torch.testing.assert_close(softmax_loss(logits, truth, soft_targets(5, 0)), functional.cross_entropy(logits, truth))


def test_soft_targets_are_torchs_cross_entropy_with_probabilities() -> None:
    logits, truth = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5
    targets = soft_targets(5, 0.45)
    torch.testing.assert_close(softmax_loss(logits, truth, targets), functional.cross_entropy(logits, targets[truth]))


def test_corn_loss_counts_each_threshold_over_the_pictures_that_reach_it() -> None:
    logits = torch.tensor([[0.0, 7.0], [math.log(3), 0.0]])  # P(y > 0) = 1/2, 3/4; P(y > 1 | y > 0) = …, 1/2
    # 0 items: −log(1/2), and nothing of the second threshold. 1 item: −log(3/4) − log(1/2). Three terms.
    wanted = (math.log(2) + math.log(4 / 3) + math.log(2)) / 3
    assert float(corn_loss(logits, torch.tensor([0, 1]))) == pytest.approx(wanted, rel=1e-6)


def test_corn_loss_equals_the_authors_loop_over_conditional_subsets() -> None:
    logits, truth = torch.randn(40, 6, generator=torch.Generator().manual_seed(3)), torch.arange(40) % 7
    total, terms = 0.0, 0
    for threshold in range(6):
        for row in range(40):
            if truth[row] > threshold - 1:
                goes_on = 1 / (1 + math.exp(-float(logits[row, threshold])))
                total -= math.log(goes_on if truth[row] > threshold else 1 - goes_on)
                terms += 1
    assert float(corn_loss(logits, truth)) == pytest.approx(total / terms, rel=1e-5)


def test_what_minimises_corn_loss_are_the_shares_that_its_probabilities_give_back() -> None:
    truth = torch.tensor([0] * 1 + [1] * 4 + [2] * 3 + [3] * 2)
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = corn_loss(logits.expand(10, 3), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(corn_probabilities(logits.detach().numpy())[0], [0.1, 0.4, 0.3, 0.2], atol=1e-3)


RELATION = Relation([["a", "b"], ["b"], ["a", "c"], [], ["c", "b"], ["d"]])


@pytest.mark.parametrize(("row", "others"), [(0, [1, 2, 4]), (1, [0, 4]), (2, [0, 4]), (3, []), (4, [0, 1, 2]), (5, [])])
def test_positives_share_at_least_one_key(row: int, others: list[int]) -> None:
    assert RELATION.positives_of(row).tolist() == others


def test_positives_among_rows_are_those_that_share_a_key_and_repeats() -> None:
    assert RELATION.among(np.array([3, 1, 0, 3, 5])).astype(int).tolist() == [
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_rows_without_keys_have_no_positives_among_them() -> None:
    assert not Relation([[], []]).among(np.array([0, 1])).any()


def supcon(embeddings: Tensor, positive: Tensor, temperature: float = 0.1) -> float:
    """Khosla et al. 2020, arXiv:2004.11362, equation 2, over the anchors that have positives."""
    similar = functional.normalize(embeddings).double() @ functional.normalize(embeddings).double().T / temperature
    losses = []
    for anchor in range(len(embeddings)):
        others = [other for other in range(len(embeddings)) if other != anchor]
        below = math.log(sum(math.exp(float(similar[anchor, other])) for other in others))
        own = [below - float(similar[anchor, other]) for other in others if positive[anchor, other]]
        if own:
            losses.append(sum(own) / len(own))
    return sum(losses) / len(losses)


def test_supcon_is_its_formula_also_where_a_picture_has_several_keys() -> None:
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(5))
    positive = torch.from_numpy(RELATION.among(np.arange(6)))
    assert float(EmbeddingLoss("supcon")(embeddings, positive)) == pytest.approx(supcon(embeddings, positive), rel=1e-4)


def multisimilarity(embeddings: Tensor, positive: Tensor) -> float:
    """Wang et al. 2019, arXiv:1904.06627, equation 15, with alpha 2, beta 50, base 0.5 and all pairs."""
    similar = functional.normalize(embeddings).double() @ functional.normalize(embeddings).double().T
    total, n = 0.0, len(embeddings)
    for anchor in range(n):
        near = [float(similar[anchor, other]) for other in range(n) if positive[anchor, other]]
        far = [float(similar[anchor, other]) for other in range(n) if other != anchor and not positive[anchor, other]]
        total += math.log1p(sum(math.exp(-2 * (one - 0.5)) for one in near)) / 2
        total += math.log1p(sum(math.exp(50 * (one - 0.5)) for one in far)) / 50
    return total / n


def test_multisimilarity_is_its_formula() -> None:
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(5))
    positive = torch.from_numpy(RELATION.among(np.arange(6)))
    found = float(EmbeddingLoss("multisimilarity")(embeddings, positive))
    assert found == pytest.approx(multisimilarity(embeddings, positive), rel=1e-4)


def test_without_positives_the_loss_is_zero_and_still_has_a_gradient() -> None:
    embeddings = torch.ones(3, 2, requires_grad=True)
    loss = EmbeddingLoss("supcon")(embeddings, torch.zeros(3, 3, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert embeddings.grad is not None
    assert torch.equal(embeddings.grad, torch.zeros(3, 2))
