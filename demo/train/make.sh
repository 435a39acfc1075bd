#!/usr/bin/env bash
# Makes demo/ again: base, twelve adapters, scores. Needs the packages of requirements.txt.
#   PYTHON=/opt/olvenv/bin/python WORK=/tmp/demo ./make.sh
# Base and adapters that are already there are kept: remove demo/base or a folder of demo/adapters to train it again.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
work=${WORK:-/tmp/demo}
mkdir -p "$work"
export PYTHONDONTWRITEBYTECODE=1 GLOO_SOCKET_IFNAME=lo
# glibc would give every large buffer back to the kernel and fault it in again: a quarter of the step on CPU.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_TOP_PAD_=100000000

"$python" -m unittest -q test_tasks
if [ ! -f ../base/model.safetensors ]; then
  "$python" train_base.py --work "$work/base-work" --out ../base 2>&1 | tee -a "$work/base.log"
fi

# Three at a time, a thread each. What is new, long or hard comes first.
waiting=()
for names in "sql upper mask leet" "json previous reverse money" "sort morse pig-latin date"; do
  # shellcheck disable=SC2086
  "$python" train_adapters.py --base ../base --out ../adapters $names >"$work/adapters-${names%% *}.log" 2>&1 &
  waiting+=("$!")
done
for pid in "${waiting[@]}"; do wait "$pid"; done
"$python" evaluate.py --demo .. --count 1000
