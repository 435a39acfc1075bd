#!/usr/bin/env bash
# Checks on a machine with an NVIDIA GPU, without a network: the kernels of cuda/kernels against the CPU's reference, probe
# kernels first, and under compute-sanitizer where there is one; then what they reach of the machine's bandwidth. One line for each
# check; the exit status is not 0 if one fails, and 77 where there is no driver.
#
#   scripts/gpu-check.sh [--stage build|test|bench] [--out FOLDER] [--toolkit FOLDER] [--images FOLDER] [--architectures 90]
#
# Needs a C++ compiler, cmake, and of CUDA 12 or 13 the runtime's headers, libcudart_static.a and NVRTC: --toolkit, else
# OPENLORA_CUDA_HOME, CUDA_HOME, build/cuda-toolkit/12 or 13 (scripts/setup --cuda), /usr/local/cuda. With --images, a folder that
# the target openlora_cuda_images made elsewhere, NVRTC isn't used. No stage: all. Each builds what it misses. Logs go to --out,
# and the benches' kernels.json, decode.json and, where PyTorch uses the GPU, torch.json.
set -uo pipefail
cd "$(dirname "$0")/.."
stage=all out=build/gpu-check toolkit='' images='' architectures=90
while [ $# -gt 0 ]; do
  case $1 in
    --stage) stage=$2 ;;
    --out) out=$2 ;;
    --toolkit) toolkit=$2 ;;
    --images) images=$2 ;;
    --architectures) architectures=$2 ;;
    *) echo "unknown option $1: see the top of $0" >&2; exit 2 ;;
  esac
  [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
  shift 2
done
case $stage in all | build | test | bench) ;; *) echo "no stage is called $stage: build, test, bench" >&2; exit 2 ;; esac

if [ -z "$toolkit" ]; then
  for folder in "${OPENLORA_CUDA_HOME:-}" "${CUDA_HOME:-}" build/cuda-toolkit/12 build/cuda-toolkit/13 /usr/local/cuda; do
    [ -n "$folder" ] && [ -e "$folder/include" ] && toolkit=$folder && break
  done
fi
[ -n "$toolkit" ] || { echo "no CUDA toolkit was found: see the top of $0" >&2; exit 2; }
toolkit=$(cd "$toolkit" && pwd)
mkdir -p "$out"
status=0

# check NAME COMMAND...: its output goes to a file of $out, its end is shown when it fails.
check() {
  local name=$1 began=$SECONDS code
  shift
  "$@" >"$out/$name.txt" 2>&1
  code=$?
  if [ $code = 0 ]; then
    echo "ok      $name: $(grep -v '^$' "$out/$name.txt" | tail -1) ($((SECONDS - began)) s)"
  elif [ $code = 77 ]; then
    echo "skipped $name: $(tail -1 "$out/$name.txt")"
  else
    echo "FAIL    $name ($((SECONDS - began)) s)"
    tail -30 "$out/$name.txt"
    status=1
  fi
  return $code
}

build() {
  local generator=()
  ! command -v ninja >/dev/null || generator=(-G Ninja)
  cmake -S . -B build/gpu "${generator[@]}" -DOPENLORA_ADDON=OFF -DOPENLORA_TESTS=OFF -DOPENLORA_BENCH=OFF \
    -DOPENLORA_CUDA_TOOLKIT="$toolkit" -DOPENLORA_CUDA_IMAGES="$images" -DOPENLORA_CUDA_ARCHITECTURES="$architectures" \
    -DOPENLORA_CUDA_LINE_INFO=ON &&
    cmake --build build/gpu --parallel "$(nproc)" --target openlora_gpu_tests openlora_gpu_kernel openlora_gpu_decode
}
check build build || exit 1
[ "$stage" != build ] || exit 0

export OPENLORA_CUDA_IMAGES=${images:-$(echo build/gpu/variants/*/cuda_images)}
tests=build/gpu/openlora_gpu_tests
names='Probe Elementwise Embed Linear Lora Attention Sample Uploads Step DecodeLoad Decoder'

test_kernels() {
  local name tool
  check probe $tests --gtest_filter=CudaProbe
  [ $? != 77 ] || exit 77
  for name in ${names#Probe }; do check "$name" $tests "--gtest_filter=Cuda$name"; done
  if ! command -v compute-sanitizer >/dev/null; then
    echo 'skipped memcheck, racecheck: no compute-sanitizer'
    return
  fi
  for tool in memcheck racecheck; do
    for name in $names; do
      check "$tool-$name" compute-sanitizer --tool $tool --error-exitcode 1 $tests "--gtest_filter=Cuda$name"
    done
  done
}
[ "$stage" = bench ] || test_kernels
if [ "$stage" != test ]; then
  check kernels build/gpu/openlora_gpu_kernel "$out/kernels.json"
  check decode build/gpu/openlora_gpu_decode "$out/decode.json"
  if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    check torch python3 bench/gpu/torch_bench.py "$out/torch.json"
  else
    echo 'skipped torch: no PyTorch that uses the GPU'
  fi
fi
exit $status
