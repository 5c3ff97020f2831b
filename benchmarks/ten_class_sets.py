"""A small ResNet on a ten-class set, by the recipe of CIFAR-10: accuracy and seconds.

    python benchmarks/ten_class_sets.py mnist --epochs 6
    python benchmarks/ten_class_sets.py fashion_mnist --epochs 30

Takes the set from the data root or downloads it. A tenth of the training pictures chooses the
epoch; the test pictures are opened once, at the end. Writes results/ten_class_sets_NAME.json.
"""

import argparse

from cifar10 import RESULTS, new_net, rows_of, train_ours

import resnet_kit as rk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--depth", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = rk.named_dataset(given.name, batch_size=256)
    model = new_net(given.depth, given.seed, in_channels=len(data.mean))
    history = train_ours(model, data, given.epochs, given.seed)
    pictures = len(data.train.dataset)
    rows = rows_of(
        model, {"val": data.val, "test": data.test}, f"ResNet-{given.depth}",
        f"ours, {given.epochs} epochs of {pictures:,} pictures", given.seed, history.seconds,
    )  # fmt: skip
    for row in rows:
        row["data"] = given.name
    options = f"--epochs {given.epochs} --depth {given.depth} --seed {given.seed}"
    rk.write_results(
        RESULTS / f"ten_class_sets_{given.name}.json",
        rows,
        command=f"python benchmarks/ten_class_sets.py {given.name} {options}",
        curves={given.name: history.rows},
    )
    print(*(f"{row['split']} {row['value']:.2%}" for row in rows), f"{history.seconds:.0f} s")


if __name__ == "__main__":
    main()
