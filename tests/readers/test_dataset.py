import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import save_file
from synthetic import make_images

from cgan.errors import ModelError
from cgan.files import sha256_of
from cgan.images import Images, load_images, pixels_digest, save_images
from cgan.model import file_facts
from cgan.splitting import stratified_split
from cgan.stages import download, preprocess, validate

IMAGES, LABELS = make_images(per_class=20)
LINES = np.arange(2, 62)


def test_saved_dataset_loads_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    save_images(path, Images(IMAGES, LABELS, lines=LINES, source_sha256="ab"), part="train")
    loaded = load_images(path)
    assert loaded.tensors.pixels.dtype == torch.uint8
    assert loaded.tensors.labels.dtype == torch.int64
    assert np.array_equal(loaded.tensors.pixels, IMAGES)
    assert np.array_equal(loaded.labels, LABELS)
    assert loaded.lines.tolist() == LINES.tolist()
    assert len(loaded) == 60 and loaded.classes == 3 and not loaded.is_named
    assert loaded.shape == (1, 8, 8) and loaded.source_sha256 == "ab"
    facts = file_facts.read_facts(path, "dataset")
    assert (facts["part"], facts["count"], facts["shape"]) == ("train", 60, [1, 8, 8])
    path.write_bytes(b"\0" * path.stat().st_size)
    loaded.tensors.pixels[0] = 7  # writable, and no part of the file
    assert np.array_equal(loaded.pixels[1:], IMAGES[1:])


@pytest.mark.parametrize("damage", ["images", "labels", "shape"])
def test_a_dataset_that_does_not_fit_its_digest_is_refused(tmp_path: Path, damage: str) -> None:
    tensors: dict[str, np.ndarray] = {"images": IMAGES.copy(), "labels": LABELS.copy()}
    facts = {"kind": "dataset", "classes": 3, "digest": pixels_digest(IMAGES, LABELS)}
    if damage == "shape":
        tensors["images"] = IMAGES.reshape(60, 1, 4, 16)
    else:
        tensors[damage].flat[0] ^= 1
    save_file(tensors, tmp_path / "x", file_facts.facts_metadata(facts))
    with pytest.raises(ModelError, match=rf"{tmp_path / 'x'}: the file is damaged"):
        load_images(tmp_path / "x")


# --- the stages ---------------------------------------------------------------------------------


def test_stages_turn_a_csv_into_datasets_and_a_contact_sheet(project: Path) -> None:
    for stage in (download, validate, preprocess):
        stage.main()
    params = yaml.safe_load(Path("params.yaml").read_text())["preprocess"]
    images, labels = make_images()
    rows = stratified_split(images, labels, params["holdout_fraction"], params["seed"])
    for name, expected in zip(("train", "holdout"), rows, strict=True):
        part = load_images(f"data/processed/{name}.safetensors")
        assert np.array_equal(part.pixels, images[expected])
        assert np.array_equal(part.labels, labels[expected])
        assert part.source_sha256 == sha256_of("data/raw/train.csv")
    with Image.open("reports/real_samples.png") as sheet:
        assert sheet.mode == "L" and sheet.height == 3 * (6 * 8 + 2) + 2
        shown = np.asarray(sheet)[2:50, -500:-452][::6, ::6]
    expected = images[rows[0]][labels[rows[0]] == 0][:, 0]
    assert any(np.array_equal(shown, image) for image in expected), "a row a class"
    source = json.loads(Path("data/raw/source.json").read_text())
    assert source["sha256"] == sha256_of("data/raw/train.csv")
    folders = ("data/raw", "reports", "data/processed")
    outputs = [path for folder in folders for path in Path(folder).iterdir()]
    before = {path: sha256_of(path) for path in outputs}
    for stage in (download, validate, preprocess):
        stage.main()
    assert len(before) == 7 and {path: sha256_of(path) for path in outputs} == before
