"""The variant `torch`: a small network, trained by the workers that torchrun starts, and served as ONNX."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXELS, CLASSES, BRIGHTEST = 64, 10, 16
EPOCHS, BATCH, LEARNING_RATE, HIDDEN = 40, 32, 2e-3, 128
OPSET = 17
EPOCHS_BETWEEN_REPORTS = 10


class Served(nn.Module):  # type: ignore[misc]
    """The network as it is served: label and probabilities of each row of pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        probabilities = torch.softmax(self.network(pixels / BRIGHTEST), dim=1)
        return probabilities.argmax(dim=1), probabilities


def train(pixels: NDArray[Any], digits: NDArray[Any], seed: int) -> bytes | None:
    """Train with the other workers, if torchrun started any; the first returns the model as ONNX, the others None."""
    rank, workers = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    if workers > 1:
        distributed.init_process_group("gloo")
    network: nn.Module = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    trained = nn.parallel.DistributedDataParallel(network) if workers > 1 else network
    rows = TensorDataset(torch.from_numpy(pixels).float() / BRIGHTEST, torch.from_numpy(digits))
    sampler = DistributedSampler(
        rows, num_replicas=workers, rank=rank, seed=seed
    )  # fmt: skip
    batches = DataLoader(rows, batch_size=BATCH, sampler=sampler)
    optimizer = torch.optim.Adam(trained.parameters(), lr=LEARNING_RATE)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for images, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(trained(images), labels)
            loss.backward()
            optimizer.step()
        if (epoch + 1) % EPOCHS_BETWEEN_REPORTS == 0:
            print(f"worker {rank} of {workers}: epoch {epoch + 1} of {EPOCHS}, loss {loss.item():.4f}", flush=True)
    if workers > 1:
        distributed.destroy_process_group()
    return _onnx(network) if rank == 0 else None


def _onnx(network: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.onnx.export(
        Served(network).eval(), torch.zeros(1, PIXELS), file, input_names=["pixels"],
        output_names=["label", "probabilities"], opset_version=OPSET,
        dynamic_axes={name: {0: "rows"} for name in ("pixels", "label", "probabilities")},
    )  # fmt: skip
    return file.getvalue()
