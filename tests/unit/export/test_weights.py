"""Weights from a file: they fit or the message says where they do not; no code of theirs is ever run."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.errors import UnsafePickleError, WeightsError
from worker.export.published import published_weights
from worker.export.weights_file import load_weights
from worker.models.torchscript import quiet_jit


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def saved(path: Path, contents: object) -> Path:
    torch.save(contents, path)
    return path


def refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), path)
    assert "\n" not in caught.value.message
    assert path.name in caught.value.message
    return caught.value


@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_inside_a_checkpoint(wrap: str | None, tmp_path: Path) -> None:
    state = {key: torch.full_like(value, 2) for key, value in network().state_dict().items()}
    module = network()

    load_weights(module, saved(tmp_path / "w.pth", {wrap: state, "epoch": 3} if wrap else state))

    assert all((value == 2).all() for value in module.state_dict().values())


def test_the_prefix_of_data_parallel_is_dropped(tmp_path: Path) -> None:
    module, state = network(), network().state_dict()

    load_weights(module, saved(tmp_path / "w.pth", {f"module.{key}": value + 1 for key, value in state.items()}))

    assert torch.equal(module[0].weight, state["0.weight"] + 1)


def test_a_torchscript_file_is_told_apart_from_weights_that_are_damaged(tmp_path: Path) -> None:
    with quiet_jit():
        torch.jit.save(torch.jit.script(network()), str(tmp_path / "whole.pt"))

    error = refusal(tmp_path / "whole.pt")

    assert "torch.jit.load(FILE).state_dict()" in error.message
    with quiet_jit():
        torch.save(torch.jit.load(str(tmp_path / "whole.pt")).state_dict(), tmp_path / "weights.pth")
    load_weights(network(), tmp_path / "weights.pth")


def test_the_first_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    state = network().state_dict()
    state["head.weight"] = state.pop("2.weight")

    error = refusal(saved(tmp_path / "w.pth", state))

    assert "missing 2.weight" in error.message
    assert "unexpected head.weight" in error.message
    assert error.exit_code == 17


def test_of_many_missing_keys_three_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    error = refusal(saved(tmp_path / "w.pth", OrderedDict()))

    assert "missing 0.weight, 0.bias, 1.weight and 5 more" in error.message


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    state = network().state_dict()
    state["2.weight"] = torch.zeros(9, 4)

    assert "2.weight" in refusal(saved(tmp_path / "w.pth", state)).message


class Payload:
    """Runs code when it is unpickled."""

    ran = False

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return Payload.run, ()

    @staticmethod
    def run() -> None:
        Payload.ran = True


@pytest.mark.parametrize("contents", [network(), {"model": Payload()}], ids=["a whole module", "a payload"])
def test_a_pickle_that_holds_code_is_refused_with_the_reason(contents: object, tmp_path: Path) -> None:
    error = refusal(saved(tmp_path / "w.pth", contents))

    assert isinstance(error, UnsafePickleError)
    assert "weights_only=False" in error.message
    assert "torch.save(model.state_dict(), FILE)" in error.message
    assert error.exit_code == 18
    assert not Payload.ran


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Payload()))

    refusal(path)

    assert not Payload.ran


@pytest.mark.parametrize("kept", [0, 10, 300, 1500])
def test_a_file_cut_short_is_refused(kept: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", network().state_dict())
    path.write_bytes(path.read_bytes()[:kept])

    assert refusal(path).exit_code == 17


@pytest.mark.parametrize("contents", [[torch.zeros(1)], {"epoch": 3}, torch.zeros(2)])
def test_a_file_without_a_state_dict_is_refused(contents: object, tmp_path: Path) -> None:
    assert "no state dict" in refusal(saved(tmp_path / "w.pth", contents)).message


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert "no weights at" in refusal(tmp_path / "gone.pth").message


WEIGHTS = b"weights of a kind"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server of one file, on a free port of this machine."""
    (tmp_path / "site").mkdir()
    promised = hashlib.sha256(WEIGHTS).hexdigest()[:8]
    for name in (f"net-{promised}.pth", "net-00000000.pth"):
        (tmp_path / "site" / name).write_bytes(WEIGHTS)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "site"))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_published_weights_are_downloaded_once_into_the_cache_of_torch(site: str, torch_home: Path) -> None:
    name = f"net-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pth"

    path = published_weights("net", f"{site}/{name}")

    assert path == torch_home / name
    assert path.read_bytes() == WEIGHTS
    assert published_weights("net", f"http://127.0.0.1:1/{name}") == path


def test_published_weights_of_another_hash_are_refused_and_not_kept(site: str, torch_home: Path) -> None:
    with pytest.raises(WeightsError, match="sha256"):
        published_weights("net", f"{site}/net-00000000.pth")

    assert list(torch_home.iterdir()) == []


def test_where_no_network_allows_it_the_message_says_what_to_download_and_where_to_put_it(torch_home: Path) -> None:
    url = "http://127.0.0.1:1/densenet161-8d451a50.pth"

    with pytest.raises(WeightsError) as caught:
        published_weights("densenet161", url)

    assert url in caught.value.message
    assert str(torch_home / "densenet161-8d451a50.pth") in caught.value.message
    assert "--weights FILE" in caught.value.message
