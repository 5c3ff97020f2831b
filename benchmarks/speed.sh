#!/usr/bin/env bash
# Measure all that README.md says of speed, on an idle machine; takes about three hours on two cores.
#
#     benchmarks/speed.sh PHOTOS
#
# PHOTOS is the folder with train/ and eval/ of the cat/dog/ants/bees photos; the data root
# (RESNET_KIT_DATA) must have cifar10.npz. PYTHON names the interpreter (default: python). Needs
# what benchmarks/requirements.txt names.
set -euo pipefail
photos=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
export TQDM_DISABLE=1 PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python}

"$python" benchmarks/side_by_side.py "$photos" --arch resnet34
"$python" benchmarks/side_by_side.py "$photos" --arch resnet18
"$python" benchmarks/side_by_side.py "$photos" --only "bare steps" --epochs 3 \
    --name fine_tuning_speed_bare
"$python" benchmarks/feature_extraction_speed.py "$photos" --rounds 3
"$python" benchmarks/reading_speed.py "$photos"
"$python" benchmarks/cifar10.py speed --rounds 3
"$python" benchmarks/overhead.py
"$python" benchmarks/results_table.py
