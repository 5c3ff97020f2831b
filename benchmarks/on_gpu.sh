#!/usr/bin/env bash
# Measure on a machine with a CUDA GPU, and leave the JSON files. All but the last part, the minutes
# of each notebook, takes about ten minutes.
#
#     benchmarks/on_gpu.sh OUT [DATA]
#
# OUT gets the logs and copies of the results; DATA is a data root with cifar10.npz and the photos
# (default: $RESNET_KIT_DATA). Parts whose data are not there are left out, and a line says so.
# PYTHON names the interpreter (default: python); the package must be importable.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
export RESNET_KIT_DATA=${2:-${RESNET_KIT_DATA:-$PWD/data}} TQDM_DISABLE=1 PYTHONPATH=$PWD
export PYTHONUNBUFFERED=1
python=${PYTHON:-python}

"$python" -c 'import torch; assert torch.cuda.is_available(), "there is no CUDA GPU"' || exit 1
"$python" -c 'import resnet_kit as rk; print(rk.doctor())' >"$out/doctor.log" 2>&1

# part SECONDS NAME COMMAND...: run a command with a limit, its output in a log of its own
part() {
    local limit=$1 name=$2 start=$SECONDS status
    shift 2
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    echo "$name: status $status, $((SECONDS - start)) s"
    return $status
}

# Tests first: they hold the tables of results/ to its files, which the other parts write anew.
workers=()
"$python" -c 'import xdist' 2>/dev/null && workers=(-n 8 --dist loadscope)
tested=(tests)
if "$python" -c 'import nbval, ipykernel' 2>/dev/null; then
    tested+=(--nbval-lax notebooks)
else
    echo "notebooks: left out, nbval or ipykernel is not installed"
fi
OMP_NUM_THREADS=1 part 200 tests "$python" -m pytest -q --no-header -p no:cacheprovider \
    "${workers[@]}" "${tested[@]}"
if [ -d "$RESNET_KIT_DATA/cat_dog_ants_bees" ]; then
    photos=$RESNET_KIT_DATA/cat_dog_ants_bees
    part 180 fine_tuning "$python" benchmarks/side_by_side.py "$photos" --epochs 10 \
        --only "bare steps" && cp results/fine_tuning_speed_gpu.json "$out/"
    part 120 transfer "$python" benchmarks/transfer.py photos &&
        cp results/transfer_photos.json "$out/"
else
    echo "photos: left out, $RESNET_KIT_DATA/cat_dog_ants_bees is not there"
fi
if [ -f "$RESNET_KIT_DATA/cifar10.npz" ]; then
    for seed in 0 1 2; do
        part 90 "cifar10_$seed" "$python" benchmarks/cifar10.py ours --epochs 60 --seed "$seed" &&
            cp results/cifar10_gpu_60.json "$out/cifar10_gpu_60_seed$seed.json"
    done
else
    echo "cifar10: left out, $RESNET_KIT_DATA/cifar10.npz is not there"
fi
# Takes long: the last part, and without it all of the above is there.
part 1800 notebooks "$python" benchmarks/notebook_minutes.py &&
    cp results/notebook_minutes_gpu.json "$out/"
