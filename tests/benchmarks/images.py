"""Images: lakefit beside Keras's loaders, Petastorm as documented, TFRecord, and decoding alone.

20,000 generated JPEGs of 256 x 256 in ten folders: decoded, resized to 224 x 224 (bilinear, without antialiasing, as
Keras's loaders do), flipped, turned and zoomed at random, in batches of 64 with their labels. `lakefit` reads them as
`prepare` writes them, unchanged; `lakefit-prepared` has them resized by `prepare`. `bare-decode` reads the same files
and decodes them, in parallel, and does nothing else. All augment with the same layers of Keras, but for
ImageDataGenerator, which has its own. Two cores, the page cache warm; the first 10 s of each contender warm up, the
images of the next SECONDS=30 count, in an epoch or more. Prints images/s and the ratio to bare-decode; the median of
RUNS=3. IMAGES=20000, CONTENDERS=lakefit,tfrecord.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import ROOT

IMAGES = int(os.environ.get("IMAGES", "20000"))
SECONDS = float(os.environ.get("SECONDS", "30"))
RUNS = int(os.environ.get("RUNS", "3"))
WARM_S = 10.0
SIDE, SIZE, CLASSES, BATCH = 256, 224, 10, 64
ROWS_OF_GROUP = 1_000
AUGMENT = [
    {"RandomFlip": {"mode": "horizontal"}},
    {"RandomRotation": {"factor": 0.05}},
    {"RandomZoom": {"height_factor": 0.1}},
]


def generated(number: int) -> bytes:
    """Return a JPEG with large shapes and grain, as a photograph has them."""
    import numpy as np
    from PIL import Image

    dice = np.random.default_rng(number)
    shapes = Image.fromarray(dice.integers(0, 256, (12, 12, 3), np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(shapes, np.int16) + dice.integers(-12, 13, (SIDE, SIDE, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_data(folder: Path) -> None:
    """Write the JPEG files, and the Parquet, TFRecord and Petastorm datasets of them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf

    from lakefit.config.images import Image
    from lakefit.prepare.images import prepare_images
    from lakefit.prepare.unischema import write_unischema

    raw = folder / "raw"
    for name in range(CLASSES):
        (raw / str(name)).mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        path = raw / str(number % CLASSES) / f"{number:05}.jpg"
        if not path.exists():
            path.write_bytes(generated(number))
    contents = [(raw / str(n % CLASSES) / f"{n:05}.jpg").read_bytes() for n in range(IMAGES)]
    labels = (np.arange(IMAGES) % CLASSES).astype(np.float32)
    steps = {
        "as-is": Image(),
        "resized": Image(resize=(SIZE, SIZE), store="jpeg"),
    }
    for name, step in steps.items():
        path = folder / name / "train/part-00000.parquet"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as threads:
            pieces = [pa.array(contents[i : i + 500], pa.binary()) for i in range(0, IMAGES, 500)]
            made = pa.chunked_array(
                found.field("content") for found in threads.map(prepare_images, pieces, repeat(step))
            )
        table = pa.table({"image": made, "label": labels, "_position": np.arange(IMAGES)})
        pq.write_table(table, path, row_group_size=ROWS_OF_GROUP, compression={"image": "none"}, use_dictionary=False)
        if name == "as-is":
            pipeline = type("Pipeline", (), {"clean": ()})
            write_unischema(folder / name, manifest(name), pipeline)  # type: ignore[arg-type]
    records = folder / "images.tfrecord"
    if not records.exists():
        with tf.io.TFRecordWriter(str(records)) as writer:
            for content, label in zip(contents, labels, strict=True):
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
                    "label": tf.train.Feature(float_list=tf.train.FloatList(value=[label])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def manifest(stored: str) -> Any:
    from feeds import manifest_of
    from lakefit.dataset.features import Features, ImageFeature, LabelFeature
    from lakefit.dataset.manifest import DataFile

    image = ImageFeature(
        name="image", shape=(SIZE, SIZE, 3), interpolation="bilinear" if stored == "as-is" else None, antialias=False
    )
    groups = tuple(min(ROWS_OF_GROUP, IMAGES - first) for first in range(0, IMAGES, ROWS_OF_GROUP))
    file = DataFile(path="train/part-00000.parquet", row_groups=groups, bytes=0, sha256="", first_position=0)
    label = LabelFeature(kind="classes", classes=tuple(map(str, range(CLASSES))))
    return manifest_of([file], Features(images=(image,))).model_copy(update={"labels": (label,)})


def layers() -> Any:
    import keras

    return [getattr(keras.layers, name)(**given) for layer in AUGMENT for name, given in layer.items()]


def augmented(images: Any, made: Any) -> Any:
    for layer in made:
        images = layer(images, training=True)
    return images


def lakefit(folder: Path, stored: str = "as-is") -> Iterator[int]:
    import tensorflow as tf

    from lakefit.feed.split import SplitFeed
    from lakefit.train.augment import build_augmentation
    from lakefit.train.model import build_model
    from lakefit.train.stage import batches_for
    from lakefit.train.workers import Workers
    from models import SOURCE, describe, train

    known = manifest(stored)
    section = train(
        model={"sequential": ["GlobalAveragePooling2D", {"Dense": {"units": CLASSES, "activation": "softmax"}}]},
        images={"augment": AUGMENT},
    )
    built = build_model(describe(known.features, *known.labels), section, SOURCE)
    feed = SplitFeed(folder / stored, known, "train", batch_size=BATCH, seed=1)
    devices = tf.distribute.get_strategy()
    augmentation = build_augmentation(built, section, SOURCE)
    for _, label in batches_for(built, feed, devices, Workers(devices), epochs=1000, augmentation=augmentation):
        yield len(label)


def lakefit_prepared(folder: Path) -> Iterator[int]:
    yield from lakefit(folder, "resized")


def bare_decode(folder: Path) -> Iterator[int]:
    import tensorflow as tf

    files = tf.data.Dataset.list_files(str(folder / "raw/*/*.jpg"), seed=1).repeat()
    images = files.map(lambda path: tf.io.decode_jpeg(tf.io.read_file(path)), num_parallel_calls=tf.data.AUTOTUNE)
    for image in images.batch(BATCH).prefetch(tf.data.AUTOTUNE):
        yield len(image)


def image_dataset_from_directory(folder: Path) -> Iterator[int]:
    import keras
    import tensorflow as tf

    made = layers()
    data = keras.utils.image_dataset_from_directory(
        folder / "raw", image_size=(SIZE, SIZE), batch_size=BATCH, seed=1, verbose=False
    )
    data = data.map(lambda x, y: (augmented(x, made), y), num_parallel_calls=tf.data.AUTOTUNE)
    for _, label in data.repeat().prefetch(tf.data.AUTOTUNE):
        yield len(label)


def image_data_generator(folder: Path) -> Iterator[int]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(horizontal_flip=True, rotation_range=18, zoom_range=0.1, fill_mode="reflect")
    for _, label in generator.flow_from_directory(folder / "raw", target_size=(SIZE, SIZE), batch_size=BATCH, seed=1):
        yield len(label)


def petastorm_documented(folder: Path) -> Iterator[int]:
    """As its README reads images: make_reader decodes rows, tf.data shuffles, resizes and batches them."""
    import lakefit.petastorm

    lakefit.petastorm.install()
    import tensorflow as tf
    from petastorm import make_reader
    from petastorm.tf_utils import make_petastorm_dataset

    made = layers()
    with make_reader(f"file://{folder / 'as-is/train'}", num_epochs=None) as reader:
        data = make_petastorm_dataset(reader).map(lambda row: (tf.image.resize(row.image, (SIZE, SIZE)), row.label))
        data = data.shuffle(1_000).batch(BATCH)
        data = data.map(lambda x, y: (augmented(x, made), y), num_parallel_calls=tf.data.AUTOTUNE)
        for _, label in data.prefetch(tf.data.AUTOTUNE):
            yield len(label)


def tfrecord(folder: Path) -> Iterator[int]:
    import tensorflow as tf

    made = layers()
    spec = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.float32)}

    def parsed(record: Any) -> Any:
        found = tf.io.parse_single_example(record, spec)
        return tf.image.resize(tf.io.decode_jpeg(found["image"]), (SIZE, SIZE)), found["label"]

    records = tf.data.TFRecordDataset(str(folder / "images.tfrecord")).repeat().shuffle(2_000)
    data = records.map(parsed, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    data = data.map(lambda x, y: (augmented(x, made), y), num_parallel_calls=tf.data.AUTOTUNE)
    for _, label in data.prefetch(tf.data.AUTOTUNE):
        yield len(label)


CONTENDERS: dict[str, Callable[[Path], Iterator[int]]] = {
    "bare-decode": bare_decode,
    "lakefit": lakefit,
    "lakefit-prepared": lakefit_prepared,
    "image-dataset-from-directory": image_dataset_from_directory,
    "tfrecord": tfrecord,
    "petastorm-documented": petastorm_documented,
    "image-data-generator": image_data_generator,
}


def measure(contender: str, folder: Path) -> None:
    """Print the images/s of a contender, once it is warm."""
    began = counted = 0.0
    images, start = 0, time.perf_counter()
    for some in CONTENDERS[contender](folder):
        now = time.perf_counter()
        if not began:
            if now - start > WARM_S:
                began = now
            continue
        images += some
        counted = now - began
        if counted > SECONDS:
            break
    print(json.dumps(images / counted), flush=True)
    os._exit(0)


def main() -> None:
    names = os.environ.get("CONTENDERS", ",".join(CONTENDERS)).split(",")
    folder = ROOT / "build/bench/images" / str(IMAGES)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, __file__, "write", str(folder)], env=environment, check=True)
    rows: list[dict[str, Any]] = []
    print(f"{'contender':<30}{'images/s':>10}{'of bare-decode':>16}  runs", flush=True)
    for name in names:
        runs = []
        for _ in range(RUNS):
            process = subprocess.run(
                [sys.executable, __file__, name, str(folder)], env=environment, capture_output=True, text=True
            )
            if process.returncode:
                raise SystemExit(f"{name} failed: {process.stderr[-3000:]}")
            runs.append(float(process.stdout.splitlines()[-1]))
        rows.append({"contender": name, "images_per_s": round(statistics.median(runs), 1), "runs": runs})
        bare = next((row["images_per_s"] for row in rows if row["contender"] == "bare-decode"), None)
        ratio = f"{rows[-1]['images_per_s'] / bare:.3f}" if bare else "-"
        each = ", ".join(f"{run:,.0f}" for run in runs)
        print(f"{name:<30}{rows[-1]['images_per_s']:>10,.0f}{ratio:>16}  {each}", flush=True)
    (ROOT / "build/bench/images.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    others = [row for row in rows if row["contender"] != "bare-decode" and not row["contender"].startswith("lakefit")]
    ours = next((row for row in rows if row["contender"] == "lakefit"), None)
    if others and ours:
        best = max(others, key=lambda row: row["images_per_s"])
        met = "met" if ours["images_per_s"] > best["images_per_s"] else "not met"
        ratio = ours["images_per_s"] / best["images_per_s"]
        print(f"lakefit is {ratio:.2f} x {best['contender']}, must be above 1: {met}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write_data(Path(sys.argv[2]))
    elif len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
