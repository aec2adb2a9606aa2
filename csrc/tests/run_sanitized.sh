#!/bin/sh
# Builds csrc/core and its tests with the address and undefined-behaviour sanitizers, and runs them.
set -eu
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

flags="-std=c++17 -g -O1 -Wall -Wextra -Werror -ffp-contract=off -fsanitize=address,undefined"
flags="$flags -fno-sanitize-recover=all -pthread"
compile() { "${CXX:-g++}" $flags "$@"; }

core="chi embed fill gram head head_plain inner_products lanes_plain plain softmax target trajectory"
case $(uname -m) in
  x86_64)
    for file in avx2 head_avx2 lanes_avx2; do
      compile -mavx2 -mfma -c "csrc/core/$file.cpp" -o "$build/$file.o" &
    done
    for file in avx512 head_avx512 lanes_avx512; do
      compile -mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl \
        -Wno-uninitialized -Wno-maybe-uninitialized -c "csrc/core/$file.cpp" -o "$build/$file.o" &
    done
    ;;
esac
for file in $core; do compile -c "csrc/core/$file.cpp" -o "$build/$file.o" & done
wait
for test in test_core test_softmax test_runs test_head; do
  compile "csrc/tests/$test.cpp" "$build"/*.o -o "$build/$test"
  "$build/$test"
done
