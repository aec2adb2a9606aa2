#!/bin/sh
# Counts the instructions of pieces of work of csrc/core on ARM64 (csrc/tools/instructions.cpp), each
# the difference between seven repetitions and two, by a plugin of qemu. Needs Debian's packages
# g++, g++-aarch64-linux-gnu and qemu-user.
set -eu
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

set -- aarch64-linux-gnu-g++ -std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math \
  -pthread
sh csrc/tests/objects.sh "$build" aarch64 "$@"
"$@" -static csrc/tools/instructions.cpp "$build"/*.o -o "$build/instructions"
cc -O2 -shared -fPIC csrc/tools/qemu_count.c -o "$build/count.so"
count() { qemu-aarch64 -plugin "$build/count.so" "$build/instructions" "$@" 2>&1; }
for work in normals normals_bf16 words softmax train inner_products heads; do
  for target in baseline neon; do
    few=$(count "$target" "$work" 2) many=$(count "$target" "$work" 7)
    echo "$work $target $(((many - few) / 5))"
  done
done
